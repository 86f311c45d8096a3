"""A diagnosis changes nothing of the user's, whether it succeeds or fails."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnbench
from bnbench.errors import BnbenchError
from tests.diagnosis.patients import loader, network, pictures, trained


class Counts(nn.Module):
    """A layer with a buffer that moves in eval mode, too, and that may break."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.left = 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        if self.get_buffer("calls") > self.left:
            raise ArithmeticError("broken")
        return x


def lived_in() -> nn.Sequential:
    """With gradients, hooks, mixed flags, dropout, and a layer that counts."""
    model = nn.Sequential(trained(), Counts(), nn.Dropout(0.5))
    model.register_forward_hook(lambda *_: None)
    model.train()
    model[0].get_submodule("4").eval()
    model[2].eval()
    x, *_ = pictures()
    model(x[:8]).sum().backward()
    return model


def everything(model: nn.Module, source: DataLoader[Any]) -> dict[str, object]:
    def bits(tensor: Tensor | None) -> bytes | None:
        return None if tensor is None else tensor.detach().numpy().tobytes()

    state = np.random.get_state(legacy=False)
    return {
        "parameters": {n: (id(p), bits(p), p.requires_grad) for n, p in model.named_parameters()},
        "gradients": {n: (id(p.grad), bits(p.grad)) for n, p in model.named_parameters()},
        "buffers": {n: (id(b), bits(b)) for n, b in model.named_buffers()},
        "flags": [module.training for module in model.modules()],
        "attributes": [set(vars(module)) for module in model.modules()],
        "hooks": [
            [dict(v) for k, v in sorted(vars(module).items()) if k.endswith("_hooks")]
            for module in model.modules()
        ],
        "torch": bits(torch.get_rng_state()),
        "numpy": repr(state),
        "python": random.getstate(),
        "loader": bits(source.generator.get_state()) if source.generator is not None else None,
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


class Draws(TensorDataset):
    """Augments with every generator that there is."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return x + 1e-3 * (torch.rand(()) + np.random.rand() + random.random()), y


def drawing(batch_size: int = 16) -> DataLoader[tuple[Tensor, ...]]:
    x, y, *_ = pictures()
    return DataLoader(
        Draws(x[:128], y[:128]),
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(3),
    )


def test_no_trace() -> None:
    model, source = lived_in(), drawing()
    before = everything(model, source)
    first = bnbench.diagnose(model, source, drawing(), images=128)
    assert everything(model, source) == before
    again = bnbench.diagnose(model, source, drawing(), images=128)
    assert again.readings == first.readings
    assert again.findings == first.findings


@pytest.mark.parametrize("call", [1, 2, 5, 12, 20])
def test_no_trace_after_a_failure(call: int) -> None:
    model, source = lived_in(), drawing()
    counts = model[1]
    assert isinstance(counts, Counts)
    counts.left = call
    before = everything(model, source)
    with pytest.raises(BnbenchError, match="the model raised ArithmeticError") as caught:
        bnbench.diagnose(model, source, drawing(), images=128)
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert everything(model, source) == before


def test_no_trace_when_the_loader_breaks() -> None:
    def broken() -> Iterator[tuple[Tensor, Tensor]]:
        x, y, *_ = pictures()
        yield x[:16], y[:16]
        torch.rand(1)
        raise OSError("the disk is gone")

    model = lived_in()
    before = everything(model, drawing())
    with pytest.raises(BnbenchError, match="train loader raised OSError: the disk is gone"):
        bnbench.diagnose(model, broken())
    assert everything(model, drawing()) == before


def test_no_trace_where_weights_are_not_finite() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("0.weight")[0] = float("inf")
    source = loader(count=128)
    before = everything(model, source)
    assert bnbench.diagnose(model, source, images=128).findings[0].name == "non-finite"
    assert everything(model, source) == before


def test_dropout_is_off() -> None:
    model = nn.Sequential(trained(), nn.Dropout(0.9)).train()
    plain = bnbench.diagnose(trained(), loader(count=256), images=256)
    found = bnbench.diagnose(model, loader(count=256), images=256)
    assert [each.loss for each in found.readings] == [each.loss for each in plain.readings]


def test_the_comparison_can_fail() -> None:
    """Negative control: a pass in training mode is noticed."""
    model, source = lived_in(), drawing()
    before = everything(model, source)
    x, *_ = pictures()
    with torch.no_grad():
        model.train()(x[:8])
    now = everything(model, source)
    assert now["buffers"] != before["buffers"]
    assert now["flags"] != before["flags"]
    next(iter(source))
    now = everything(model, source)
    assert now["loader"] != before["loader"]
    assert now["numpy"] != before["numpy"]
    assert now["python"] != before["python"]


class Standardizes(nn.Module):
    """A network that standardizes its inputs first, in place or not, and counts in a new buffer."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.network, self.in_place = network(), in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls: Tensor = self.get_buffer("calls") + 1
        x = x.sub_(0.3).div_(2.0) if self.in_place else (x - 0.3) / 2.0
        return self.network(x)  # type: ignore[no-any-return]


def test_a_network_that_changes_its_inputs_in_place() -> None:
    torch.manual_seed(0)
    model = Standardizes(in_place=True)
    other = Standardizes(in_place=False)
    other.load_state_dict(model.state_dict())
    images = list(loader(count=64))
    kept = [x.clone() for x, _ in images]
    found = bnbench.diagnose(model, images, images)
    expected = bnbench.diagnose(other, images, images)
    assert found.readings == expected.readings
    assert found.layers == expected.layers
    assert all(torch.equal(x, before) for (x, _), before in zip(images, kept, strict=True))
    assert model.calls == 0
