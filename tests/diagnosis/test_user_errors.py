"""What users give that cannot be diagnosed: a sentence with what was found and what is expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

import bnbench
from bnbench.errors import BnbenchError, DataError, UsageError
from tests.diagnosis.patients import loader, norms, pictures, trained

X, Y = torch.randn(8, 1, 28, 28), torch.arange(8)


class Answers(nn.Module):
    """Gives what it is told to."""

    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.output = output
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Any:
        self.norm(x)
        return self.output(x)


def empty_batches() -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield X[:0], Y[:0]


class Endless(Sampler[int]):
    """Never ends, and cannot say how long it is."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0


class Lying(list[Any]):
    def __len__(self) -> int:
        raise SystemExit(0)


class Dies(TensorDataset):
    """Its worker process ends, or raises."""

    def __init__(self, how: Callable[[], Any]) -> None:
        super().__init__(X, Y)
        self.how = how

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.how()
        return super().__getitem__(index)  # type: ignore[no-any-return,no-untyped-call]


def reads() -> None:
    raise ValueError("no image\nat all")


LOADERS: dict[str, tuple[Any, type[BnbenchError], str]] = {
    "empty": ([], DataError, "the train loader gave no batch"),
    "one image": ([(X[:1], Y[:1])], DataError, "the train loader gave one image"),
    "empty batches": (empty_batches(), DataError, "gave 1,000 batches without an image"),
    "no length": (Lying([(X, Y)]), DataError, "the train loader raised SystemExit: 0"),
    "worker raises": (
        DataLoader(Dies(reads), batch_size=4, num_workers=1),
        DataError,
        f"test_user_errors.py:{reads.__code__.co_firstlineno + 1}: the train loader raised "
        "ValueError: no image at all",
    ),
    "worker dies": (
        DataLoader(Dies(lambda: os._exit(3)), batch_size=4, num_workers=1),
        DataError,
        "a worker process of a loader has died: DataLoader worker",
    ),
    "dict": ([{"one": X, "two": X}], UsageError, "takes input, and the loader yields a dict with"),
    "nested": ([((X, X), Y)], UsageError, "the model raised"),
    "strings": ([(X, ["a"] * 8)], UsageError, "the labels are a list of str"),
    "none": ([None], UsageError, "yields None"),
    "an object": ([object()], UsageError, "an object of type object"),
    "real labels": ([(X, Y + 0.5)], UsageError, "8×10 for float32 labels of shape 8"),
    "one-hot": ([(X, torch.eye(8).long())], UsageError, "labels of shape 8×8"),
    "unequal": ([(X, Y[:4])], UsageError, "without one for each row of a batch"),
    "edges": ([(X, torch.arange(6).view(2, 3), Y)], UsageError, "yields nodes and edges of graphs"),
    "shapes differ": ([(X, Y), (X[..., :14], Y)], UsageError, "on inputs of shape 8×1×28×14"),
    "too many classes": ([(X, Y + 5)], UsageError, "labels run from 5 to 12, and the model has 10"),
    "negative": ([(X, Y - 1)], UsageError, "labels run from -1 to 6"),
    "ignored": ([(X, Y * 0 - 100)], UsageError, "all labels are -100, which count for nothing"),
    "ignored masks": (
        [(X, torch.tensor([-100, 255]).repeat(8, 1).view(8, 2))],
        UsageError,
        "all labels are -100 and 255, which count for nothing",
    ),
    "wrong channels": ([(X.repeat(1, 3, 1, 1), Y)], UsageError, "the model raised RuntimeError on"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_loaders(case: str) -> None:
    batches, kind, sentence = LOADERS[case]
    with pytest.raises(kind) as caught:
        bnbench.diagnose(trained(), batches)
    assert sentence in str(caught.value)
    assert caught.value.do


def test_a_sampler_that_never_ends() -> None:
    data = TensorDataset(X, Y)
    found = bnbench.diagnose(
        trained(), DataLoader(data, batch_size=4, sampler=Endless()), images=64
    )
    assert found.images == {"train": 64}


MODELS: dict[str, tuple[Any, str]] = {
    "no module": (lambda x: x, "the model is an object of type function"),
    "a number": (Answers(lambda _: 3.0), "the model gives an object of type float"),
    "nothing": (Answers(lambda _: None), "the model gives None"),
    "images": (Answers(lambda x: x), "outputs of shape 8×1×28×28 for int64 labels of shape 8"),
    "fewer": (Answers(lambda x: x[:4, 0, 0]), "outputs of shape 4×28 for int64 labels of shape 8"),
    "breaks": (
        Answers(lambda _: int("a")),
        "the model raised ValueError on inputs of shape 8×1×28×28",
    ),
    "meta": (
        nn.BatchNorm2d(1, device="meta"),
        "weight has no values: it is on torch's meta device",
    ),
    "lazy": (nn.LazyBatchNorm2d(), "a lazy layer that has never seen an input"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(case: str) -> None:
    model, sentence = MODELS[case]
    with pytest.raises(UsageError) as caught:
        bnbench.diagnose(model, [(X, Y)])
    assert sentence in str(caught.value)
    assert caught.value.do


def test_settings() -> None:
    with pytest.raises(UsageError, match="a batch of 1 has no batch statistics"):
        bnbench.diagnose(trained(), loader(), batch_sizes=[1])
    with pytest.raises(UsageError, match="1 images are too few"):
        bnbench.diagnose(trained(), loader(), images=1)


def not_finite_layer() -> nn.Module:
    """Its weights are finite, what one of its layers makes of inputs is not."""
    model = trained()
    model[2] = nn.Sequential(nn.Identity(), Logarithm())  # type: ignore[operator]
    return model


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def nan_weight() -> nn.Module:
    model = trained()
    model.get_parameter("6.weight").data[0] = float("nan")
    return model


def infinite_statistics() -> nn.Module:
    model = trained()
    model.get_buffer("4.running_var")[3] = float("inf")
    return model


@pytest.mark.parametrize(
    ("make", "layer", "evidence"),
    [
        (nan_weight, "6", "6.weight holds 144 of 4,608 values"),
        (not_finite_layer, "2.1", "the outputs of 2.1 are not"),
    ],
)
def test_where_what_is_not_finite_begins(
    make: Callable[[], nn.Module], layer: str, evidence: str
) -> None:
    found = bnbench.diagnose(make(), loader(count=128), images=128)
    assert [each.name for each in found.findings] == ["non-finite"]
    assert found.findings[0].layers == (layer,)
    assert evidence in found.findings[0].evidence
    record = found.as_record()  # strict JSON has no NaN
    losses = {each["loss"] for each in record["readings"]}
    assert all(each is None or each == each for each in losses)


def test_inputs_that_are_not_finite() -> None:
    x = X.clone()
    x[3, 0, 0, 0] = float("nan")
    (finding,) = bnbench.diagnose(trained(), [(x, Y)]).findings
    assert finding.name == "non-finite"
    assert "1 of 8 inputs of the train loader" in finding.evidence


class Backwards(nn.Module):
    """Layers are registered in another order than that in which they are used."""

    def __init__(self) -> None:
        super().__init__()
        layers = [*trained().children()]
        self.head, self.body = nn.Sequential(*layers[6:]), nn.Sequential(*layers[:6])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def test_variances_that_overflowed_are_named_from_the_first_layer_of_a_pass() -> None:
    model = Backwards()
    for name in ("head.1", "body.4"):
        model.get_buffer(f"{name}.running_var")[2] = float("inf")
    (finding,) = bnbench.diagnose(model, loader(count=128), images=128).findings
    assert (finding.name, finding.harmful) == ("overflowed-variance", True)
    assert finding.layers == ("body.4", "head.1")
    where = "1 of 16 values of body.4.running_var are not finite, and so are those of 1 layer more"
    assert finding.evidence == f"{where}; all weights are finite"
    assert "float16" not in finding.evidence


def test_a_variance_that_float16_cannot_hold_is_not_written() -> None:
    """The first layer's inputs are large, in half precision."""
    model = trained()
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(1000)
    norms(model)["1"].running_var = torch.full((8,), float("inf"))
    x, y, *_ = pictures()
    found = bnbench.diagnose(model.half(), [(x[:64].half(), y[:64])], images=64)
    (finding,) = found.findings
    assert finding.name == "overflowed-variance"
    assert "float16 ends at 65,504" in finding.evidence
    assert "keep BatchNorm layers in float32" in finding.do
    assert set(found.population) == {"4", "7"}


def test_infinite_running_statistics_can_be_fixed() -> None:
    model = infinite_statistics()
    found = bnbench.diagnose(model, loader(count=128), images=128)
    assert [each.name for each in found.findings] == ["overflowed-variance"]
    model.load_state_dict(found.recalibrated(model.state_dict()))
    assert bnbench.diagnose(model, loader(count=128), images=128).healthy
