"""Labels as datasets give them: another form of the same labels costs the same; what is missing is
left out."""

from __future__ import annotations

from math import nan

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnbench
from bnbench.diagnosis.answers import TWO, of_two
from bnbench.diagnosis.criteria import channels
from bnbench.errors import UsageError
from tests.diagnosis.test_models import clusters
from tests.diagnosis.test_tasks import X, body, rows

CLASS = clusters()[1]
PLACES = torch.stack([CLASS % 2, CLASS // 2, CLASS % 2], 1)
"""Of two classes, (512, 3)."""


class Places(nn.Module):
    """(N, 6) → (N, 2, 3): each position is one of two classes; `last`: (N, 3, 2)."""

    def __init__(self, *, last: bool = False) -> None:
        super().__init__()
        self.body, self.last = body(6), last

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x).view(len(x), 2, 3)
        return found.transpose(1, 2) if self.last else found


class Heads(nn.Module):
    """A dict of answers, of which one has the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: Tensor = self.body(x)
        return {"boxes": found[:, :2], "kind": found, "seen": found[:, 0]}


ONE_HOT = F.one_hot(PLACES, 2)
"""(512, 3, 2)."""


@pytest.mark.parametrize(
    ("model", "plain", "other"),
    [
        (body(4), CLASS, CLASS[:, None]),
        (body(4), CLASS, CLASS.double()),
        (Heads(), CLASS, CLASS.float()),
        (Places(last=True), PLACES, PLACES[:, None].float()),
        (Places(), PLACES, PLACES[:, None]),
        (Places(), PLACES, ONE_HOT.transpose(1, 2)),
        (Places(last=True), PLACES, ONE_HOT.float()),
        (body(1), CLASS % 2, CLASS % 2 * 2 - 1),
        (body(1), CLASS % 2, (CLASS % 2 * 2 - 1)[:, None].float()),
        (body(3), PLACES, (PLACES * 255).to(torch.uint8)),
    ],
)
def test_another_form_of_the_same_labels_costs_the_same(
    model: nn.Module, plain: Tensor, other: Tensor
) -> None:
    expected = bnbench.diagnose(model, rows(X, plain))
    found = bnbench.diagnose(model, rows(X, other))
    for one, its in zip(found.readings, expected.readings, strict=True):
        assert one.loss == pytest.approx(its.loss, abs=1e-9)
        assert one.accuracy == pytest.approx(its.accuracy, abs=1e-9)
    assert [each.evidence for each in found.findings] == [e.evidence for e in expected.findings]


def test_of_a_dict_of_heads_the_one_that_fits_the_labels_is_the_answer() -> None:
    found, expected = (bnbench.diagnose(model, rows(X, CLASS)) for model in (Heads(), body(4)))
    assert found.readings == expected.readings
    assert any(each.startswith("part 2 of the output") for each in found.notes)


def test_outputs_of_a_lower_resolution_are_to_be_enlarged() -> None:
    with pytest.raises(UsageError, match="outputs of shape 32×3×2×2") as caught:
        bnbench.diagnose(
            nn.Sequential(body(12), nn.Unflatten(1, (3, 2, 2))),
            rows(X, CLASS[:, None, None].expand(-1, 4, 4) % 3),
        )
    assert "F.interpolate(model(batch[0]), size=batch[1].shape[-2:])" in (caught.value.do or "")


def test_a_sigmoid_for_each_class_is_no_softmax() -> None:
    model, labels = body(4), F.one_hot(CLASS)
    with torch.no_grad():
        out = model.eval()(X)
    each = F.binary_cross_entropy_with_logits(out, labels.float()).item()
    of_all = F.cross_entropy(out, CLASS).item()
    for last, expected in ((nn.Sigmoid(), each), (nn.Softmax(1), of_all), (nn.Identity(), of_all)):
        found = bnbench.diagnose(nn.Sequential(model, last), rows(X, labels))
        assert found.reading("running").loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
def test_shares_in_one_loader_and_numbers_in_the_other(swapped: bool) -> None:
    """As where training mixes images up, and evaluation does not."""
    model, loaders = body(4), [rows(X, F.one_hot(CLASS).float()), rows(X, CLASS)]
    found = bnbench.diagnose(model, *(reversed(loaders) if swapped else loaders))
    with torch.no_grad():
        expected = F.cross_entropy(model.eval()(X), CLASS).item()
    for loader in ("train", "eval"):
        reading = next(e for e in found.readings if e.loader == loader)
        assert reading.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("train", "other", "said"),
    [
        (CLASS, PLACES[:, [0, 1, 2, 0]], "outputs of shape"),
        (CLASS, CLASS * 0 - 100, "the eval loader has no labels that count"),
        (X[:, :4], X[:, :4] * nan, "the eval loader has no labels that count"),
        (CLASS, CLASS + 1, "^eval loader: the labels run from 1 to 4, and the model has 4"),
        (X[:, :4], X[:, :3], "^eval loader: the model gives outputs of shape"),
    ],
)
def test_labels_of_evaluation_that_say_nothing(train: Tensor, other: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bnbench.diagnose(body(4), rows(X, train), rows(X, other))


@pytest.mark.parametrize("two", [(255, 1), (-1, 0), (-1, 1), (0, 255)])
def test_labels_of_two_kinds_are_told_by_what_they_are(two: tuple[int, int]) -> None:
    labels = torch.tensor(two * 2)
    narrow = labels.to(torch.uint8 if max(two) > 1 else torch.int8)
    assert of_two(labels) == of_two(narrow) == (two if two in TWO else None)


def test_masks_that_are_images_are_no_classes() -> None:
    with pytest.raises(UsageError, match="the labels are 0 and 255") as caught:
        bnbench.diagnose(Places(), rows(X, PLACES * 255))
    assert "divided by 255" in (caught.value.do or "")


@pytest.mark.parametrize("two", [False, True])
def test_values_that_are_missing_are_left_out(two: bool) -> None:
    """Of examples that have some, the others count; an example that has none is not counted."""
    y = PLACES.float() if two else X[:, :3] * torch.tensor([1.0, 2.0, 3.0])
    y[::3, 1], y[::5] = nan, nan
    model = body(3)
    found = bnbench.diagnose(model, rows(X, y))
    known = ~y.isnan()
    with torch.no_grad():
        out = model.eval()(X).double()
    if two:
        each = F.binary_cross_entropy_with_logits(out, y.nan_to_num().double(), reduction="none")
    else:
        values = y.double().numpy()
        scale = torch.tensor([values[:, k][known[:, k]].var(ddof=1) for k in range(3)]).mean()
        each = (out - y.nan_to_num()).square() / scale
    there = known.any(1)
    expected = ((each * known).sum(1) / known.sum(1))[there].mean().item()
    reading = found.reading("running")
    assert reading.loss == pytest.approx(expected, rel=1e-5)
    assert reading.images == int(there.sum())


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_labels_in_another_unit_are_asked_for(factor: float) -> None:
    y = X @ torch.linspace(-1, 1, 6)[:, None]
    model = nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        model.train()(X)
        found = bnbench.diagnose(model, rows(X, (y + 20) * factor))
    said = [each.do for each in found.findings if each.name == "at-chance"]
    assert said
    assert all("another unit" in each for each in said)


class Whole(nn.BatchNorm1d):
    """What it does in training is not known, so that batches are passed one by one."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + (1e-2 * input.amax(0) if self.training else 0)


def test_logits_that_are_small_by_chance_are_logits() -> None:
    """Of batches of two, whose logits are all from 0 to 1, which a sigmoid gives, too."""
    linear, norm, y = nn.Linear(6, 1), Whole(1), CLASS % 2
    with torch.no_grad():
        linear.weight.fill_(1)  # under running statistics they are none
        norm.weight.fill_(0.2)
        norm.bias.fill_(0.5)
    model = nn.Sequential(linear, norm)
    loader = rows(X, y, size=2)
    found = bnbench.diagnose(model, loader, images=len(X))
    shares = bnbench.diagnose(nn.Sequential(model, nn.Sigmoid()), loader, images=len(X))
    with torch.no_grad():
        out = torch.cat([model.train()(x) for x, _ in loader])[:, 0].double()
    assert 0 <= out.min() < out.max() <= 1
    expected = F.binary_cross_entropy_with_logits(out, y.double()).item()
    for each in (found, shares):
        assert each.reading("batch").loss == pytest.approx(expected, rel=1e-5)


def test_batches_that_labels_tell_apart_are_mixed() -> None:
    """They are what is wrong: batches of one class each."""
    order = CLASS.argsort()
    loader = DataLoader(TensorDataset(X[order], CLASS[order]), 32)
    found = bnbench.diagnose(body(4), loader)
    assert any("hold fewer classes" in each for each in found.notes)
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))
    for forward in (None, lambda model, batch: model(batch[0])):
        taken = bnbench.diagnose(model, loader, forward=forward)
        mixed = bnbench.diagnose(model, TensorDataset(X, CLASS), forward=forward)  # type: ignore[arg-type]
        own, other = (each.population["0"].mean for each in (taken, mixed))
        assert torch.allclose(own, other, atol=1e-5)


def test_datasets_that_number_classes_otherwise_are_said() -> None:
    train, test = TensorDataset(X, CLASS), TensorDataset(X, CLASS)
    for each, names in ((train, list("abcd")), (test, list("acd"))):
        each.classes = names  # type: ignore[attr-defined]
    found = bnbench.diagnose(body(4), DataLoader(train, 64), DataLoader(test, 64))
    assert any("class 1 is b in train, c in test" in each for each in found.notes)


def test_inputs_in_units_of_their_own_are_not_dead() -> None:
    mean = torch.zeros(4, dtype=torch.float64)
    variance = torch.tensor([1.0, 4.0, 1e8, 1e8], dtype=torch.float64)
    assert not channels(mean, variance, 1e-5)[0].any()
    assert channels(mean, variance * 1e-6, 1e-5)[0].tolist() == [True, True, False, False]
    # What fp32 makes of a constant of 1e6.
    assert channels(mean + 1e6, variance * 0.1, 1e-5)[0].tolist() == [True, True, False, False]
