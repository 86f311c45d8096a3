"""Layers inside of TorchScript: read as the modules that they were made from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import bnbench
from bnbench.diagnosis import Diagnosis
from bnbench.errors import UsageError
from tests.diagnosis.patients import eval_loader, loader, network, norms, statistics, trained
from tests.diagnosis.test_layers import Part
from tests.diagnosis.test_own_layers import ByHand

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def diagnosed(model: nn.Module) -> Diagnosis:
    return bnbench.diagnose(model, loader(count=256), eval_loader(), images=256)


def scripted(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.jit.script(model))


def traced(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.jit.trace(model.eval(), torch.randn(4, 1, 28, 28)))  # type: ignore[no-untyped-call]


def spoiled() -> nn.Module:
    model = trained()
    statistics(norms(model)["4"])[1].mul_(30)
    return model


@pytest.mark.parametrize("wrap", [lambda each: each, Part])
def test_a_scripted_network_is_read_as_what_it_was_made_from(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    expected = diagnosed(wrap(spoiled()))
    model = wrap(scripted(spoiled()))
    before = copy.deepcopy(dict(model.state_dict()))
    modes = [each.training for each in model.modules()]
    found = diagnosed(model)
    assert found.findings == expected.findings
    assert [each.name for each in found.findings] == ["mismatched"]
    for one, other in zip(found.readings, expected.readings, strict=True):
        assert one.statistics == other.statistics
        assert one.loss == pytest.approx(other.loss, abs=1e-6)
    assert found.layers == expected.layers
    assert [each.training for each in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.load_state_dict(found.recalibrated(model.state_dict()))
    assert diagnosed(model).healthy


def test_what_was_traced_in_eval_mode_uses_running_statistics_in_training_too() -> None:
    model = traced(spoiled())
    found, expected = diagnosed(model), diagnosed(spoiled())
    assert found.reading("running").loss == pytest.approx(expected.reading("running").loss)
    assert found.reading("batch").loss == found.reading("running").loss
    assert any("are used in training, too" in each for each in found.notes)
    before = found.reading("running").loss
    assert found.reading("population").loss < before - 0.1
    model.load_state_dict(found.recalibrated(model.state_dict()))
    assert diagnosed(model).reading("running").loss < before - 0.1


def test_a_healthy_scripted_network_is_healthy() -> None:
    assert diagnosed(scripted(trained())).healthy


class Scripted(ByHand):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x - self.running_mean  # type: ignore[operator]
        return 2 * y


def test_a_layer_that_is_written_by_hand_is_refused_by_name() -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = Scripted(1), nn.Linear(784, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(x).flatten(1))  # type: ignore[no-any-return]

    with pytest.raises(UsageError, match=r"^norm \(Scripted\) is in TorchScript"):
        diagnosed(scripted(Body()))


def test_frozen_statistics_are_refused() -> None:
    frozen = cast(nn.Module, torch.jit.freeze(scripted(network()).eval()))
    with pytest.raises(UsageError, match="statistics are constants"):
        diagnosed(Part(frozen))
