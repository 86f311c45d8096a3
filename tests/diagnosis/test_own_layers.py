"""Layers that are not torch's: played by their own forward, or named as what is not known."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnbench
from tests.diagnosis.patients import BATCH, network, once, pictures, steps
from tests.diagnosis.test_layers import diagnosed, fixed, loss


class ByHand(nn.Module):
    """As people write it; its momentum is the weight of the old statistics."""

    def __init__(self, channels: int, **_: object) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))
        self.momentum, self.eps = 0.9, 1e-5

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.get_buffer("running_mean"), self.get_buffer("running_var")
        mean, variance = self.moments(x) if self.training else kept
        if self.training:
            with torch.no_grad():
                for buffer, new in zip(kept, (mean, variance), strict=True):
                    buffer.lerp_(new, 1 - self.momentum)
        shape = (-1, 1, 1)
        y = (x - mean) * (variance + self.eps).rsqrt()
        return y * self.weight.view(shape) + self.bias.view(shape)


class InPlace(ByHand):
    """Writes its output over its input, to save memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.copy_(super().forward(x.clone()))


class OfTheBrighter(ByHand):
    """A masked layer: statistics are those of half of the values."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().moments(x.flatten(2).sort(2).values[:, :, x[0, 0].numel() // 2 :, None])


class Greatest(OfTheBrighter):
    """Keeps the greatest means that it has seen: no average."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.training:
            with torch.no_grad():
                kept = self.get_buffer("running_mean")
                kept.copy_(torch.maximum(kept, self.moments(x)[0]))
        return y


class Corrected(nn.BatchNorm2d):
    """Training shrinks what it has normalized."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return 0.5 * y if self.training else y


class Frozen(ByHand):
    """Running statistics in training, too, as torchvision's FrozenBatchNorm2d."""

    def forward(self, x: Tensor) -> Tensor:
        training, self.training = self.training, False
        y = super().forward(x)
        self.training = training
        return y


@once
def learned(norm: Callable[..., nn.Module]) -> nn.Module:
    return steps(network(norm=norm), 60)


@pytest.mark.parametrize("norm", [ByHand, InPlace])
def test_a_layer_written_by_hand_is_diagnosed_and_fixed(norm: type[nn.Module]) -> None:
    model = learned(ByHand)
    for name in ("1", "4", "7"):
        model.get_submodule(name).__class__ = norm
    healthy = diagnosed(model, 512)
    assert healthy.healthy
    assert [each.kind for each in healthy.layers] == [norm.__name__] * 3
    assert healthy.reading("batch").loss == pytest.approx(loss(model, training=True), abs=1e-4)
    for name, buffer in model.named_buffers():
        buffer.fill_(name.endswith("var"))
    found = diagnosed(model, 512)
    assert [each.name for each in found.findings] == ["never-updated"]
    after = loss(fixed(model, found), training=False)
    assert after == pytest.approx(found.reading("population").loss, abs=1e-3)
    assert after < found.reading("running").loss - 0.1


class Fused(nn.Module):
    """A convolution and its normalization in one."""

    def __init__(self, convolution: nn.Module, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(self.convolution(x), *kept, self.weight, self.bias, self.training)


def test_a_layer_that_does_more_than_to_normalize_is_read_where_it_does() -> None:
    plain = copy.deepcopy(learned(nn.BatchNorm2d))
    norms = [plain.get_submodule(name) for name in ("1", "4", "7")]
    for norm in norms:
        norm.get_buffer("running_var").mul_(50)
    fused = copy.deepcopy(plain)
    for name, following in (("0", "1"), ("3", "4"), ("6", "7")):
        norm = fused.get_submodule(following)
        assert isinstance(norm, nn.BatchNorm2d)
        setattr(fused, name, Fused(fused.get_submodule(name), norm))
        setattr(fused, following, nn.Identity())
    expected, found = diagnosed(plain, 512), diagnosed(fused, 512)
    assert [each.name for each in found.findings] == ["mismatched"]
    assert [each.loss for each in found.readings] == pytest.approx(
        [each.loss for each in expected.readings], abs=1e-6
    )


def test_how_often_a_layer_without_a_count_was_updated_is_not_said() -> None:
    model = learned(ByHand)
    for name in ("1", "4", "7"):
        model.get_submodule(name).get_buffer("running_var").mul_(50)
    (found,) = diagnosed(model, 512).findings
    assert found.name == "mismatched"
    assert "often enough" not in found.evidence


class ByFunction(nn.Module):
    """Its statistics have names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(momentum=None)[0]
        self.out = nn.Linear(8 * 196, 10)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("variance", torch.full((8,), 50.0))

    def forward(self, x: Tensor) -> Tensor:
        kept = self.get_buffer("mean"), self.get_buffer("variance")
        y = F.batch_norm(self.inner(x), *kept, training=self.training)
        return self.out(y.relu().flatten(1))  # type: ignore[no-any-return]


def test_statistics_that_no_layer_keeps_are_said_to_be_so() -> None:
    model = steps(ByFunction(), 20)
    model.get_buffer("variance").fill_(50)
    found = diagnosed(model, 256)
    assert [each.name for each in found.findings if each.harmful] == ["mode-branch"]
    assert found.findings[0].do.startswith("give each normalization a module of its own")
    assert "normalizes by statistics that no module" in found.findings[0].evidence
    assert not any("normalizes" in each or "no BatchNorm" in each for each in found.notes)
    assert found.against is not None
    assert found.against[1] == found.findings[0].do
    assert not any("normalizes" in each for each in diagnosed(learned(Corrected), 128).notes)


class ByName(nn.Module):
    """Calls its layer with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 8, 3, 2, 1), ByHand(8)
        self.out = nn.Linear(8 * 14 * 14, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x=self.conv(x))
        return self.out(y.relu().flatten(1))  # type: ignore[no-any-return]


def test_a_layer_that_is_called_with_keywords_is_read() -> None:
    model = steps(ByName(), 20)
    model.get_buffer("norm.running_var").mul_(9)
    found = diagnosed(model, 512)
    assert [each.used for each in found.layers] == [True]
    assert found.reading("batch").loss == pytest.approx(loss(model, training=True), abs=1e-4)
    after = loss(fixed(model, found), training=False)
    assert after == pytest.approx(found.reading("population").loss, abs=1e-3)


def averaged_by_hand(model: nn.Module) -> nn.Module:
    """A copy with averages of what its own layers take of the batches of a diagnosis of 512."""
    twin = copy.deepcopy(model).train()
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
    for each in twin.modules():
        if isinstance(each, ByHand):
            each.register_forward_pre_hook(
                lambda layer, args: seen.setdefault(layer, []).append(layer.moments(args[0]))
            )
    x, *_ = pictures()
    with torch.no_grad():
        for k in range(8):
            twin(x[BATCH * k : BATCH * k + BATCH])
    for layer, found in seen.items():
        means, variances = (torch.stack(each) for each in zip(*found, strict=True))
        layer.get_buffer("running_mean").copy_(means.mean(0))
        layer.get_buffer("running_var").copy_(variances.mean(0) + means.var(0, correction=0))
    return twin


def test_a_layer_with_statistics_of_its_own_is_diagnosed_and_fixed() -> None:
    model = learned(OfTheBrighter)
    healthy = diagnosed(model, 512)
    assert healthy.healthy
    assert healthy.reading("batch").loss == pytest.approx(loss(model, training=True), abs=1e-4)
    assert any("1, 4, 7 (OfTheBrighter): training does more" in each for each in healthy.notes)
    for name, buffer in model.named_buffers():
        buffer.fill_(name.endswith("var"))
    found = diagnosed(model, 512)
    assert [each.name for each in found.findings] == ["never-updated"]
    by_hand = loss(averaged_by_hand(model), training=False)
    assert found.reading("population").loss == pytest.approx(by_hand, abs=0.01)
    assert loss(fixed(model, found), training=False) == pytest.approx(by_hand, abs=0.01)
    assert by_hand < found.reading("running").loss - 0.1


class MaskedNorm(nn.Module):
    """(N, C, T): statistics of valid positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = 1e-5

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if self.training:
            valid = x.transpose(1, 2)[mask]
            new = valid.mean(0), valid.var(0, correction=0)
            with torch.no_grad():
                mean.lerp_(new[0], 0.1)
                variance.lerp_(new[1], 0.1)
            mean, variance = new
        return (x - mean[:, None]) * (variance[:, None] + self.eps).rsqrt()


class Sequences(nn.Module):
    """Rows of a picture one after the other, (N, 28, T), of which a part is valid."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv1d(28, 32, 3, padding=1), MaskedNorm(32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x), mask).relu() * mask[:, None]
        return self.out(y.sum(2) / mask.sum(1, keepdim=True))  # type: ignore[no-any-return]


def test_a_layer_that_is_given_a_mask_keeps_to_it() -> None:
    """Nothing is masked in the first batch."""
    x, y, *_ = pictures()
    lengths = torch.randint(8, 29, (512,), generator=torch.Generator().manual_seed(0))
    lengths[:BATCH] = 28
    masks = torch.arange(28) < lengths[:, None]
    rows = 3 * masks[:, None] * x[:512, 0] + 5 * ~masks[:, None]
    batches = [
        tuple(each[BATCH * k : BATCH * k + BATCH] for each in (rows, masks, y)) for k in range(8)
    ]
    model = Sequences().train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for k in range(160):
        inputs, mask, labels = batches[k % 8]
        optimizer.zero_grad()
        F.cross_entropy(model(inputs, mask), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert bnbench.diagnose(model, batches, images=512).healthy
    model.norm.get_buffer("running_var").mul_(30)
    found = bnbench.diagnose(model, batches, images=512)
    assert [each.name for each in found.findings] == ["mismatched"]
    with torch.no_grad():
        valid = model.conv(rows).transpose(1, 2)[masks].double()
    population = found.population["norm"]
    # Batches count by their images, not by their valid positions.
    assert torch.allclose(population.mean, valid.mean(0), rtol=0.02, atol=0.05)
    assert torch.allclose(population.variance, valid.var(0), rtol=0.05)


def test_a_layer_of_which_training_is_not_known_is_played_by_itself_and_named() -> None:
    model = learned(Greatest)
    found = diagnosed(model, 512)
    assert found.reading("batch").loss == pytest.approx(loss(model, training=True), abs=1e-4)
    assert found.reading("population").loss == found.reading("running").loss
    assert any("1, 4, 7 (Greatest): it is not known" in each for each in found.notes)
    assert not found.population


def test_a_layer_that_does_more_in_training_is_played_by_itself() -> None:
    model = learned(Corrected)
    found = diagnosed(model, 512)
    assert found.reading("running").loss == pytest.approx(loss(model, training=False), abs=1e-5)
    assert found.reading("batch").loss == pytest.approx(loss(model, training=True), abs=1e-4)
    assert set(found.population) == {"1", "4", "7"}
    assert any("training does more than" in each for each in found.notes)


def test_a_frozen_layer_is_seen() -> None:
    model = learned(Frozen)
    found = diagnosed(model, 512)
    assert found.reading("batch").loss == found.reading("running").loss
    assert [each.kind for each in found.layers] == ["Frozen"] * 3
    assert any("used in training, too" in each for each in found.notes)
    assert not any(each.harmful for each in found.findings)


def test_what_is_played_by_itself_leaves_no_trace() -> None:
    for norm in (ByHand, OfTheBrighter, Greatest, Corrected, Frozen):
        model = network(norm=norm)
        before = {name: (id(each), each.clone()) for name, each in model.named_buffers()}
        attributes = [set(vars(each)) for each in model.modules()]
        diagnosed(model, 128)
        assert [set(vars(each)) for each in model.modules()] == attributes
        for name, each in model.named_buffers():
            assert id(each) == before[name][0]
            assert torch.equal(each, before[name][1])
