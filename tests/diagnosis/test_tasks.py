"""Networks for other things than one class an image: what they cost is what torch says."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import bnbench
from bnbench.diagnosis import Diagnosis
from bnbench.diagnosis.answers import total
from bnbench.diagnosis.batches import collect
from bnbench.errors import UsageError
from bnbench.guard import ForeignCode
from tests.diagnosis.test_models import clusters

X, CLASS = clusters()
STEPS = 150


def body(outputs: int) -> nn.Module:
    """Its running statistics are of earlier weights: the initial ones."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(16, momentum=0.001)
    return nn.Sequential(nn.Linear(6, 16), norm, nn.ReLU(), nn.Linear(16, outputs))


def fitted(model: nn.Module, loss: Callable[[], Tensor]) -> nn.Module:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def rows(*columns: Any, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*columns), batch_size=size)


def stale(found: Diagnosis, running: Tensor, batch: Tensor) -> None:
    """It is named, with losses that torch alone gives."""
    assert [each.name for each in found.findings] == ["stale"]
    assert found.reading("running").loss == pytest.approx(running.item(), abs=1e-4)
    assert found.reading("batch").loss == pytest.approx(batch.item(), abs=1e-4)


@torch.no_grad()
def by_torch(model: nn.Module, loss: Callable[[Tensor, slice], Tensor]) -> tuple[Tensor, Tensor]:
    """Of all examples, in eval mode and in batches of 32 in training mode; buffers given back."""
    before = {name: each.clone() for name, each in model.state_dict().items()}
    found = []
    for mode in (False, True):
        model.train(mode)
        parts = [slice(32 * k, 32 * k + 32) for k in range(len(X) // 32)]
        found.append(torch.stack([loss(model(X[part]), part) for part in parts]).mean())
    model.load_state_dict(before)
    return found[0], found[1]


def test_a_regression() -> None:
    y = X @ torch.linspace(-1, 1, 6)[:, None] * 40 + 7
    model = body(1)
    fitted(model, lambda: F.mse_loss(model(X) * 100, y))
    model = nn.Sequential(model, Times(100.0))
    found = bnbench.diagnose(model, rows(X, y))
    scale = y.var(0)
    running, batch = by_torch(model, lambda out, part: F.mse_loss(out, y[part]) / scale.item())
    stale(found, running, batch)
    assert found.reading("running").accuracy is None
    flat = bnbench.diagnose(model, rows(X, y[:, 0]))
    assert flat.reading("running") == found.reading("running")
    squeezed = bnbench.diagnose(nn.Sequential(model, nn.Flatten(0)), rows(X, y[:, 0]))
    assert squeezed.readings == found.readings


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_several_labels_an_example() -> None:
    y = torch.stack([CLASS == 0, CLASS >= 2, CLASS == 3], 1).float()
    model = body(3)
    fitted(model, lambda: F.binary_cross_entropy_with_logits(model(X), y))
    found = bnbench.diagnose(model, rows(X, y))

    def loss(out: Tensor, part: slice) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, y[part])

    stale(found, *by_torch(model, loss))
    model.eval()
    right = ((model(X) > 0) == (y > 0)).double().mean().item()
    assert found.reading("running").accuracy == pytest.approx(right)


def test_one_logit() -> None:
    y = CLASS % 2
    model = body(1)
    fitted(model, lambda: F.binary_cross_entropy_with_logits(model(X)[:, 0], y.float()))
    found = bnbench.diagnose(model, rows(X, y))
    assert [each.name for each in found.findings] == ["stale"]
    assert (found.reading("batch").accuracy or 0) > 0.9


class Dense(nn.Module):
    """(N, 6) → (N, classes, 3): each position is one of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(len(x), 2, 3)  # type: ignore[no-any-return]


def test_dense_labels_with_some_that_do_not_count() -> None:
    y = torch.stack([CLASS == 0, CLASS >= 2, CLASS == 3], 1).long()
    y[::2, 1] = -100
    model = Dense()
    fitted(model, lambda: F.cross_entropy(model(X), y))
    found = bnbench.diagnose(model, rows(X, y))

    def loss(out: Tensor, part: slice) -> Tensor:
        each = F.cross_entropy(out, y[part], reduction="none").sum(1)
        return (each / (y[part] >= 0).sum(1)).mean()

    stale(found, *by_torch(model, loss))


def test_examples_without_a_label_are_left_out() -> None:
    """They are part of batch statistics all the same."""
    y = CLASS.clone()
    y[::4] = -100
    model = body(4)
    fitted(model, lambda: F.cross_entropy(model(X), y))
    found = bnbench.diagnose(model, rows(X, y))
    running, batch = by_torch(model, lambda out, part: F.cross_entropy(out, y[part]))
    assert found.reading("running").loss == pytest.approx(running.item(), abs=1e-4)
    assert found.reading("batch").loss == pytest.approx(batch.item(), abs=1e-4)
    right = (model.eval()(X).argmax(1) == y)[y >= 0].double().mean().item()
    assert found.reading("running").accuracy == pytest.approx(right)


def test_outputs_without_labels_are_compared_with_those_under_batch_statistics() -> None:
    target = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    model = body(8)
    fitted(model, lambda: F.mse_loss(model(X), (X @ target).tanh()))
    (finding,) = bnbench.diagnose(model, rows(X)).findings
    assert finding.name == "stale"
    healthy = body(8)
    vars(healthy.get_submodule("1"))["momentum"] = 0.1
    fitted(healthy, lambda: F.mse_loss(healthy(X), (X @ target).tanh()))
    assert bnbench.diagnose(healthy, rows(X)).healthy
    assert bnbench.diagnose(healthy, [x for (x,) in rows(X)]).healthy


class Arguments(nn.Module):
    """Two inputs by name, and an object that holds logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(4)

    def forward(self, first: Tensor, second: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.body(torch.cat([first, second], 1))
        return {
            "loss": None if labels is None else F.cross_entropy(logits, labels),
            "logits": logits,
        }


class Detector(nn.Module):
    """Losses in training mode, results in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(4)

    def forward(self, inputs: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        logits = self.body(torch.stack(inputs))
        if self.training:
            assert targets is not None
            labels = torch.stack([each["label"] for each in targets])
            return {"classes": F.cross_entropy(logits, labels)}
        return [{"scores": each} for each in logits]


def examples(size: int = 32) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    for x, y in rows(X, CLASS, size=size):
        yield list(x), [{"label": each} for each in y]


def as_dicts() -> list[dict[str, Tensor]]:
    return [{"first": x[:, :2], "second": x[:, 2:], "labels": y} for x, y in rows(X, CLASS)]


def trained(model: Any) -> Any:
    fitted(model, lambda: F.cross_entropy(model.body(X), CLASS))
    return model


def test_dicts_tuples_and_losses_in_training_cost_the_same() -> None:
    plain = trained(Arguments())
    expected = bnbench.diagnose(plain.body, rows(X, CLASS))
    assert [each.name for each in expected.findings] == ["stale"]
    dicts = bnbench.diagnose(plain, as_dicts())
    two = [(batch["first"], batch["second"], batch["labels"]) for batch in as_dicts()]
    assert dicts.readings == expected.readings
    assert bnbench.diagnose(plain, two).readings == expected.readings
    detector = Detector()
    detector.body = plain.body
    losses = bnbench.diagnose(detector, list(examples()))
    assert [each.name for each in losses.findings] == ["stale"]
    for one, other in zip(losses.readings, expected.readings, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)


@pytest.mark.parametrize("kind", [list, tuple])
def test_images_and_targets_of_a_detector_are_counted(kind: type[Any]) -> None:
    """Tuples are what `collate_fn=lambda rows: tuple(zip(*rows))` makes."""
    batches = [(kind(x), kind(y)) for x, y in examples(size=16)]
    kept = collect(batches, "train", 64, torch.device("cpu"), ForeignCode())
    assert kept.sizes == (16,) * 4


@pytest.mark.parametrize("kind", [dict, UserDict])  # transformers' BatchEncoding is a UserDict
def test_targets_of_any_mapping_are_kept_on_the_device_and_within_the_limit(
    kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [(x, [kind(each) for each in y], kind(y[0])) for x, y in examples(size=16)]
    kept = collect(batches, "train", 64, torch.device("meta"), ForeignCode())
    _, targets, rest = kept.batch(torch.arange(3))
    assert [each["label"].device.type for each in (*targets, rest)] == ["meta"] * 4
    of_a_batch = 16 * (X[0].nbytes + CLASS[0].nbytes)
    monkeypatch.setattr("bnbench.diagnosis.batches.MOST_BYTES", 2 * of_a_batch)
    kept = collect(batches, "train", 64, torch.device("cpu"), ForeignCode())
    assert kept.sizes == (16, 16)
    monkeypatch.setattr("bnbench.diagnosis.batches.MOST_BYTES", 2 * of_a_batch - 1)
    kept = collect(batches, "train", 64, torch.device("cpu"), ForeignCode())
    assert kept.sizes == (16,)


def test_what_the_user_says_comes_first() -> None:
    plain = trained(Arguments())
    expected = bnbench.diagnose(plain.body, rows(X, CLASS))
    batches = [{"inputs": x, "answers": y} for x, y in rows(X, CLASS)]
    with pytest.raises(UsageError) as caught:
        bnbench.diagnose(plain, batches)
    assert "def forward(model, batch)" in (caught.value.do or "")
    found = bnbench.diagnose(
        plain,
        batches,
        forward=lambda model, batch: model.get_submodule("body")(batch["inputs"]),
        score=lambda output, batch: F.cross_entropy(output, batch["answers"], reduction="none"),
    )
    assert [each.name for each in found.findings] == ["stale"]
    for one, other in zip(found.readings, expected.readings, strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from zip(X, CLASS, strict=True)


def test_a_loss_among_other_outputs_is_taken() -> None:
    assert total({"loss": torch.tensor(2.0), "prediction_outputs": torch.ones(8, 3)}) == 2
    assert total({"a": torch.tensor(2.0), "b": torch.tensor(1.0)}) == 3
    assert total({"a": torch.ones(8, 3)}) is None


def test_kinds_of_loaders() -> None:
    model = trained(Arguments()).body
    expected = bnbench.diagnose(model, rows(X, CLASS))
    endless = bnbench.diagnose(model, DataLoader(Endless(), batch_size=32), images=len(X))
    assert endless.readings == expected.readings
    dataset = bnbench.diagnose(model, TensorDataset(X, CLASS))  # type: ignore[arg-type]
    assert dataset.batch_size == 64
    assert [each.name for each in dataset.findings] == ["stale"]

    def forever() -> Iterator[Any]:
        while True:
            yield from rows(X, CLASS)

    generator = forever()
    bnbench.diagnose(model, generator, images=64)
    assert next(generator)
