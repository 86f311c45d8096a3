"""Layers that nobody here wrote, or that are used in ways that nobody here thought of."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnbench
from bnbench.diagnosis import Diagnosis
from bnbench.diagnosis.target import SavedModel, of_model, put_into, recalibrate
from tests.diagnosis.patients import (
    BATCH,
    IMAGES,
    eval_loader,
    loader,
    network,
    norms,
    pictures,
    statistics,
    steps,
    trained,
)


def diagnosed(model: nn.Module, images: int = IMAGES) -> Diagnosis:
    return bnbench.diagnose(model, loader(), images=images)


def loss(model: nn.Module, *, training: bool) -> float:
    """By torch alone: over the images of a diagnosis of 512, as in training or in inference."""
    x, y, *_ = pictures()
    twin = copy.deepcopy(model).train(training)
    with torch.no_grad():
        # The loader's batches of 64, spread evenly over 157: every 19th or 20th.
        at = [(2 * k + 1) * 157 // 16 for k in range(8)]
        parts = [slice(BATCH * k, BATCH * k + BATCH) for k in at]
        losses = [F.cross_entropy(twin(x[part]), y[part]).item() for part in parts]
    return sum(losses) / len(losses)


def fixed(model: nn.Module, found: Diagnosis) -> nn.Module:
    """A copy with what --fix would write."""
    content = recalibrate(of_model(model), model, found)
    state = torch.load(io.BytesIO(content), weights_only=True)
    twin = copy.deepcopy(model)
    put_into(twin, SavedModel("fixed.pt", state, state))
    return twin


class Activates(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def activating() -> nn.Module:
    """Trained with layers that normalize and activate in one."""
    model = steps(network(norm=Activates), 60)
    for name in ("2", "5", "8"):
        setattr(model, name, nn.Identity())
    return model


def test_layers_that_activate_too_are_read_as_they_are() -> None:
    model = activating()
    found = diagnosed(model, 512)
    assert found.healthy
    assert found.reading("running").loss == pytest.approx(loss(model, training=False), abs=1e-5)
    assert found.reading("batch").loss == pytest.approx(loss(model, training=True), abs=1e-5)


def test_layers_that_activate_too_are_fixed() -> None:
    model = activating()
    before = loss(model, training=False)
    for each in norms(model).values():
        each.reset_running_stats()
    found = diagnosed(model, 512)
    assert [each.name for each in found.findings] == ["never-updated"]
    after = loss(fixed(model, found), training=False)
    assert after == pytest.approx(found.reading("population").loss, abs=1e-3)
    assert after == pytest.approx(before, abs=0.05)


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = trained()
        self.layers = nn.ModuleList([self.backbone])

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)  # type: ignore[no-any-return]


def test_a_layer_is_recalibrated_under_all_its_names() -> None:
    model = TwoNames()
    for each in norms(model).values():
        statistics(each)[1].mul_(30)
    found = diagnosed(model)
    assert [each.name for each in found.layers] == ["backbone.1", "backbone.4", "backbone.7"]
    state = found.recalibrated(model.state_dict())
    for name in ("1", "4", "7"):
        changed = state[f"backbone.{name}.running_var"]
        assert not torch.equal(changed, model.state_dict()[f"backbone.{name}.running_var"])
        assert torch.equal(changed, state[f"layers.0.{name}.running_var"])
    assert diagnosed(fixed(model, found)).healthy


def test_statistics_that_move_no_more_are_used_all_the_same() -> None:
    """`track_running_stats` set to False in fine-tuning."""
    model = trained()
    for each in norms(model).values():
        each.track_running_stats = False
    steps(model, 60, lr=0.2)
    found = diagnosed(model)
    assert [each.tracks for each in found.layers] == [True] * 3
    assert [(each.name, each.harmful) for each in found.findings] == [("mismatched", True)]
    assert diagnosed(fixed(model, found)).healthy


class Part(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


def test_a_compiled_part_is_read_as_it_is_written() -> None:
    compilations = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> object:
        compilations.append(graph)
        return graph.forward

    inner: nn.Module = torch.compile(trained(), backend=backend)  # type: ignore[assignment]
    model = Part(inner).eval()
    x, *_ = pictures()
    model(x[:BATCH])
    assert compilations
    compilations.clear()
    found = diagnosed(model, 256)
    expected = diagnosed(trained(), 256)
    assert compilations == []
    assert found.readings == expected.readings
    model(x[:BATCH])
    assert compilations == []


def test_a_generator_goes_on_where_the_diagnosis_stopped() -> None:
    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        x, y, *_ = pictures()
        while True:
            yield x[:BATCH], y[:BATCH]

    source = endless()
    assert bnbench.diagnose(trained(), source, images=128).images == {"train": 128}
    assert len(next(source)[0]) == BATCH


def test_a_network_that_keeps_what_it_computed_goes_on_training() -> None:
    class Keeps(nn.Module):
        kept: Tensor | None = None

        def __init__(self) -> None:
            super().__init__()
            self.inner = trained()

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = x.new_ones(10)
            return self.inner(x) * self.kept  # type: ignore[no-any-return]

    model = Keeps()
    bnbench.diagnose(model, loader(), eval_loader(), images=128)
    assert steps(model, 1) is model
