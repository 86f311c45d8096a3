"""Layers that nobody here wrote, or that are used in ways that nobody here thought of."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bnbench
from bnbench.diagnosis import Diagnosis
from bnbench.diagnosis.evidence import SavedModel
from bnbench.diagnosis.target import of_model, put_into, recalibrate
from bnbench.errors import UsageError
from tests.diagnosis.patients import (
    BATCH,
    IMAGES,
    eval_loader,
    loader,
    network,
    norms,
    once,
    pictures,
    statistics,
    steps,
    trained,
)
from tests.diagnosis.test_models import clusters


def diagnosed(model: nn.Module, images: int = IMAGES) -> Diagnosis:
    return bnbench.diagnose(model, loader(count=images), images=images)


def loss(model: nn.Module, *, training: bool) -> float:
    """By torch alone: over the images of a diagnosis of 512, as in training or in inference."""
    x, y, *_ = pictures()
    twin = copy.deepcopy(model).train(training)
    with torch.no_grad():
        parts = [slice(BATCH * k, BATCH * k + BATCH) for k in range(8)]
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


@once
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
    assert [(each.name, each.harmful) for each in found.findings] == [("frozen", True)]
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


# --- a layer for several inputs -------------------------------------------------------------------


class Levels(nn.Module):
    """One head for two kinds of features: they differ in scale and by a shift, or in nothing."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.shift = scale, shift
        self.features = nn.Conv2d(1, 8, 3, 2, 1)
        self.head = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.features(x), self.scale * self.features(x.flip(3)) + self.shift
        pooled = [self.head(each).mean((2, 3)) for each in levels]
        return self.out(torch.cat(pooled, 1))  # type: ignore[no-any-return]


def test_a_layer_for_inputs_that_differ_is_named() -> None:
    model = steps(Levels(12.0, 20.0), 150, lr=0.03)
    found = diagnosed(model, 512)
    (finding,) = found.findings
    assert (finding.name, finding.harmful, finding.layers) == ("reused-layer", True, ("head.0",))
    assert "calls layer head.0 2 times" in finding.evidence
    assert "recalibrating does not change that" in finding.do
    assert loss(model, training=True) < loss(model, training=False) - 0.1
    with pytest.raises(UsageError, match="with recalibrated statistics the model is worse"):
        found.recalibrated(model.state_dict())


def test_a_layer_for_inputs_that_are_alike_is_no_fault() -> None:
    found = diagnosed(steps(Levels(1.0, 0.0), 150, lr=0.03), 512)
    assert found.healthy


def lit(x: Tensor) -> Tensor:
    """Each image in a light of its own."""
    random = torch.Generator().manual_seed(7)
    contrast, light = torch.randn(2, len(x), 1, 1, 1, generator=random)
    return x * contrast.exp() + 4 * light  # type: ignore[no-any-return]


def test_instance_norm_that_tracks_is_named() -> None:
    def norm(channels: int, **_: object) -> nn.Module:
        return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)

    x, y, *_ = pictures()
    x, y = lit(x[:1024]), y[:1024]

    def batch(k: int) -> tuple[Tensor, Tensor]:
        return x[k * BATCH % 1024 :][:BATCH], y[k * BATCH % 1024 :][:BATCH]

    model = steps(network(norm=norm), 100, batch=batch)
    pairs = DataLoader(TensorDataset(x, y), BATCH)
    found = bnbench.diagnose(model, pairs, images=512)
    assert [each.name for each in found.findings] == ["instance-norm-tracks"]
    for each in model.modules():
        if isinstance(each, nn.InstanceNorm2d):
            each.track_running_stats = False
    batch_loss = found.reading("batch").loss
    running = bnbench.diagnose(model, pairs, images=512).reading("running").loss
    assert running == pytest.approx(batch_loss, abs=1e-5)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.norm(self.conv(x)).relu()
        return x + update


def test_of_many_layers_the_one_at_fault_is_found() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(288, 10))
    model = nn.Sequential(nn.Conv2d(1, 8, 5, 4), *(Residual() for _ in range(30)), head)
    steps(model, 40, lr=0.02)
    statistics(norms(model)["18.norm"])[1].mul_(1e-3)
    found = diagnosed(model, 512)
    blamed = {each.name: each.blame for each in found.layers if each.blame is not None}
    assert 0 < len(blamed) <= 12
    assert max(blamed, key=lambda name: blamed[name]) == "18.norm"


class OfTensorFlow(nn.Module):
    """Its statistics have the names that they have there, and are far from those of a batch."""

    def __init__(self, channels: int, **_: object) -> None:
        super().__init__()
        self.register_buffer("moving_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("moving_variance", torch.full((channels, 1, 1), 50.0))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.get_buffer("moving_mean"), self.get_buffer("moving_variance")
        if self.training:
            now = x.mean((0, 2, 3))[:, None, None], x.var((0, 2, 3))[:, None, None]
            mean.lerp_(now[0].detach(), 0.001)
            variance.lerp_(now[1].detach(), 0.001)
            mean, variance = now
        return (x - mean) / (variance + 1e-5).sqrt()


def test_statistics_by_other_names_are_said_to_be_so() -> None:
    found = diagnosed(steps(network(norm=OfTensorFlow), 20), 256)
    (finding,) = (each for each in found.findings if each.harmful)
    assert finding.name == "mode-branch"
    assert "normalizes by statistics that no module" in finding.evidence
    assert not any("no BatchNorm" in each for each in found.notes)


class InBoth(nn.BatchNorm1d):
    """Running statistics in training, too."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, eps=self.eps)


@pytest.mark.parametrize(("away", "expected"), [(0.0, []), (3.0, ["mismatched"])])
def test_where_both_modes_use_running_statistics_a_lower_loss_is_no_gap(
    away: float, expected: list[str]
) -> None:
    """Variances that are too large make it less sure, and no less right; means that are off do."""
    x, y = clusters()
    model = nn.Sequential(InBoth(6), nn.Linear(6, 4, bias=False))
    z = (x - x.mean(0)) / x.std(0)
    model.load_state_dict({
        "0.weight": torch.ones(6), "0.bias": torch.zeros(6),
        "0.running_mean": x.mean(0) + away * x.std(0), "0.running_var": 25 * x.var(0),
        "0.num_batches_tracked": torch.tensor(500),
        "1.weight": torch.stack([z[y == each].mean(0) for each in range(4)]),
    })  # fmt: skip
    found = bnbench.diagnose(model, DataLoader(TensorDataset(x, y), 32))
    assert found.reading("population").loss < found.reading("running").loss - 0.1
    assert [each.name for each in found.findings if each.harmful] == expected
