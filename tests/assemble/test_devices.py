"""Where a run computes, and in which precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bnbench.assemble import resolve_device
from bnbench.config import schema
from bnbench.errors import UsageError
from bnbench.train import train
from tests.assemble.examples import (
    built,
    config,
)


def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda:0"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:0", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_devices_that_there_are(
    gpus: int, mps: bool, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus=gpus, mps=mps)
    assert str(resolve_device(name)) == expected


def test_workers_take_gpus_in_turn_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=3)
    taken = [str(resolve_device("cuda", worker)) for worker in range(5)]
    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    for name, expected in (("cuda:0", "cuda:0"), ("cuda:2", "cuda:2"), ("auto", "cuda:0")):
        assert str(resolve_device(name, 1)) == expected


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        (0, "cuda"),
        (0, "cuda:0"),
        (1, "cuda:1"),
        (1, "cuda:200"),  # torch.device reads the index as a signed byte: −56 …
        (1, "cuda:256"),  # … and 0
        (1, "mps"),
    ],
)
def test_devices_that_there_are_not(gpus: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=gpus)
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    assert str(caught.value) == (
        f"there is no device {name} on this machine\n  use --device cpu, or auto for what there is"
    )


@pytest.mark.parametrize("name", ["xpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1_0", "cpu:²"])
def test_what_is_no_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=1)
    with pytest.raises(UsageError, match="is not a device"):
        resolve_device(name)


def test_precision_is_that_of_the_configuration() -> None:
    dtypes: list[torch.dtype] = []

    def see(_: nn.Module, __: object, y: Tensor) -> None:
        dtypes.append(y.dtype)

    for precision in ("fp32", "bf16"):
        run = built(config(compute=schema.ComputeConfig(precision=precision)))
        run.model.get_submodule("stage1.block1.conv").register_forward_hook(see)
        list(train(run))
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
        expected = torch.float32 if precision == "fp32" else torch.bfloat16
        assert set(dtypes) == {expected}  # in training and in the evaluations alike
        dtypes.clear()
