"""Exchanging the norms of any network: torch and torchvision say what must come out."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

import bnbench
from bnbench.errors import ArgumentError, UsageError
from bnbench.norms.group import GroupNorm
from tests.custom_layers import PeakNorm, build_small_unet
from tests.norms import rows


class Fused(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: an activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.LeakyReLU(0.3, inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.act(super().forward(input))
        return y


class Twisted(Fused):
    """It does something that no module inside of it does."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class Shared(nn.Module):
    """One norm under two names, called twice; and a residual sum and a ReLU that work in place."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.norm = norm(4)
        self.again = self.norm
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.one(x)))
        y: Tensor = self.again(self.two(x))
        y += x
        return y


def seasoned(model: nn.Module) -> nn.Module:
    """With γ, β and running statistics as after some training, drawn."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for each in (module.weight, module.bias, module.running_mean):
                if each is not None:
                    each.data.normal_()
            if module.running_var is not None:
                module.running_var.uniform_(0.5, 2.0)
    return model


def passed(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Outputs in both modes, gradients and buffers."""
    outputs = [model.train()(each) for each in inputs]
    torch.autograd.backward([y.square().mean() for y in outputs])
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    with torch.no_grad():
        after = [model.eval()(each) for each in inputs]
    return [*outputs, *gradients, *model.buffers(), *after]


IMAGES = (4, 4, 6, 6)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, eps=1e-3)), (6, 4)),
    "1d, sequences": (lambda: nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5)), (4, 4, 9)),
    "3d": (lambda: nn.Sequential(nn.Conv3d(4, 5, 2), nn.BatchNorm3d(5)), (2, 4, 4, 5, 6)),
    "sync": (lambda: nn.Sequential(nn.SyncBatchNorm(4, momentum=None)), IMAGES),
    "no affine": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False, momentum=0.3)),
        IMAGES,
    ),
    "fused": (lambda: nn.Sequential(Fused(4), nn.Conv2d(4, 4, 1)), IMAGES),
    "timm's": (lambda: nn.Sequential(BatchNormAct2d(4, act_layer=nn.SiLU)), IMAGES),
    "shared": (Shared, IMAGES),
    "itself": (lambda: nn.BatchNorm2d(4), IMAGES),
    "resnet": (lambda: timm.create_model("test_resnet", num_classes=3), (4, 3, 32, 32)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_norm_for_batch_norm_is_the_same_to_the_bit(
    name: str, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = seasoned(make())
    x = torch.randn(shape) + 1
    x = x.to(memory_format=layout) if x.ndim == 4 else x
    swapped, said = bnbench.swap(deepcopy(model), "batch")
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [type(m).__name__ for m in norms] == [each.old for each in said]
    for one, other in zip(passed(model, x, 2 * x), passed(swapped, x, 2 * x), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm", ["instance", "rms", "layer", "group"])
@pytest.mark.parametrize("channels", [8, 16])  # statistics are summed along other axes from 16 on
def test_what_follows_may_work_in_place(norm: str, channels: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(True))
    bnbench.swap(model, norm)
    model(torch.ones(2, 3, 4, 4)).sum().backward()


def test_group_norm_is_torchvisions_own() -> None:
    """resnet18 made with GroupNorm, and with BatchNorm and exchanged, with the same weights."""
    torch.manual_seed(0)
    original = torchvision.models.resnet18(norm_layer=partial(nn.GroupNorm, 8), num_classes=4)
    model = torchvision.models.resnet18(num_classes=4)
    model.load_state_dict(original.state_dict(), strict=False)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    original.load_state_dict(dict(model.named_parameters()))
    model, said = bnbench.swap(model.double(), "group", groups=8)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for one, other in zip(passed(original.double(), x), passed(model, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert len(said) == 20
    assert str(said).splitlines()[0] == (
        "bn1                    BatchNorm2d → GroupNorm; carried: weight, bias"
    )


KINDS = {
    kind: {key: value for key, value in rows.settings(kind) if key not in ("kind", "placement")}
    for kind in rows.KINDS
    if kind not in ("custom", "frn", "evonorm-s0", "group-ws", "scaled-ws")
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_in_a_foreign_network(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    model, said = bnbench.swap(seasoned(Shared()), kind, example=x, steps=100, **KINDS[kind])
    assert isinstance(model, Shared)
    assert model.norm is model.again
    assert [each.name for each in said] == ["norm"]
    assert all(each.isfinite().all() for each in passed(model, x))


def test_statistics_are_carried_and_a_layers_clock_is_not() -> None:
    model: Any = nn.Sequential(nn.BatchNorm2d(4))
    model(torch.randn(8, 4, 2, 2) + 3)
    x, expected = torch.randn(2, 4, 3, 3), deepcopy(model).eval()
    frozen, said = bnbench.swap(deepcopy(model), "frozen", freeze_after=0)
    assert said[0].carried == ("weight", "bias", "running statistics")
    torch.testing.assert_close(frozen.train()(x), expected(x))
    later, _ = bnbench.swap(model, "frozen", freeze_after=0.5, steps=2)
    assert later.state_dict()["0.norm.num_batches_tracked"] == 0


def test_an_optimizer_that_was_there_before_trains_the_same_parameters() -> None:
    model: Any = Shared()
    before = {id(each) for each in model.parameters()}
    model.norm.weight.requires_grad_(False)
    model, _ = bnbench.swap(model, "layer")
    assert {id(each) for each in model.parameters()} == before
    assert [each.requires_grad for each in model.norm.parameters()] == [False, True]


@pytest.mark.parametrize(("norm", "keys"), [("none", {}), (PeakNorm, {"eps": 0.1})])
def test_where_the_shift_is_lost_the_layer_before_gets_it(norm: Any, keys: dict[str, Any]) -> None:
    model: Any = build_small_unet(in_channels=3, classes=2)
    x = torch.randn(2, 3, 8, 8)
    state = deepcopy(model).state_dict()
    with pytest.raises(UsageError, match=r"^down.1: the layer before .* bias.*\n.*example=x"):
        bnbench.swap(model, norm, **keys)
    assert model.state_dict().keys() == state.keys()
    model, said = bnbench.swap(model, norm, example=x, **keys)
    assert [each.biased for each in said] == ["down.0", "bottom.0", "up", "out.0"]
    assert model.get_submodule("up").bias.shape == (4,)
    assert not model.get_submodule("up").bias.any()
    model(x).sum().backward()
    assert all(module.training for module in model.modules())


def test_each_layer_before_a_shared_norm_gets_a_bias() -> None:
    """Moving β into the biases, through the norm that is left out, changes no output."""
    model: Any = Shared().eval()
    model.norm.weight.data.fill_((1 + model.norm.eps) ** 0.5)  # of statistics 0 and 1: x + β
    model.norm.bias.data.normal_()
    x, shift = torch.randn(2, 4, 5, 5), model.norm.bias.detach().clone()
    expected = model(x)
    model, said = bnbench.swap(model, "none", example=x)
    assert said[0].biased == "one and two"
    for each in (model.one, model.two):
        each.bias.data += shift
    torch.testing.assert_close(model(x), expected)


class Auxiliary(nn.Module):
    """A head that only training sees, as GoogLeNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.aux = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        return (y, self.aux(y)) if self.training else y


def test_what_only_training_sees_is_seen() -> None:
    model, x = Auxiliary(), torch.randn(2, 3, 4, 4)
    kept = nn.Sequential(nn.BatchNorm2d(3), model)  # whose statistics must not move
    state = deepcopy(kept[0].state_dict())

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(3) if channels == 3 else nn.Identity()

    _, said = bnbench.swap(kept, norm, example=x)
    assert [each.biased for each in said] == ["", "1.body.0", "1.aux.0"]
    statistics = kept.get_submodule("0.norm").state_dict()
    assert all(torch.equal(statistics[key], value) for key, value in state.items())
    assert kept.training


def fused_for_quantization() -> nn.Module:
    """A convolution that computes with the statistics of the BatchNorm inside of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is deprecated, and there
        quantization: Any = importlib.import_module("torch.ao.quantization")
        model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        fused = quantization.fuse_modules_qat(model.train(), [["0", "1", "2"]])
        fused.qconfig = quantization.get_default_qat_qconfig("x86")
        prepared: nn.Module = quantization.prepare_qat(fused)
    return prepared


def test_a_shape_that_cannot_be_normalized_is_said_with_the_layer() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    bnbench.swap(model, "instance")
    with pytest.raises(ArgumentError, match=r"^1: 1 channel of 1 image on .*\(batch, group and"):
        model(torch.zeros(2, 3))


def test_what_is_fused_stays_and_what_is_not_understood_is_refused() -> None:
    model, said = bnbench.swap(nn.Sequential(Fused(4)), "group", groups=2)
    x = torch.randn(2, 4, 3, 3)
    expected = nn.functional.leaky_relu(nn.functional.group_norm(x, 2), 0.3)
    torch.testing.assert_close(model(x), expected)
    assert (said[0].old, said[0].new) == ("Fused", "GroupNorm")
    with pytest.raises(UsageError, match=r"^0: Twisted does more in eval mode than to normalize"):
        bnbench.swap(nn.Sequential(Twisted(4)), "group", groups=2)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda *_: None)
    return model


class Computes(nn.Module):
    """Has a running mean as a parameter, and a variance that it computes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.running_mean = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.weight = self.bias = None

    @property
    def running_var(self) -> torch.Tensor:
        return self.running_mean + 1


@pytest.mark.parametrize(
    ("model", "norm", "keys", "message"),
    [
        (nn.Conv2d(3, 4, 1), "group", {}, "the network has no BatchNorm layer to exchange"),
        (nn.Sequential(nn.LazyBatchNorm2d()), "group", {}, "0: LazyBatchNorm2d does not know"),
        (hooked(), "group", {}, "0: it has hooks"),
        (Shared(partial(nn.BatchNorm2d, track_running_stats=False)), "ghost", {"batch_size": 2},
         "norm: it has no running statistics, which GhostBatchNorm needs"),
        (Shared(), "group", {"groups": 3}, "norm: 4 channels do not split into 3 groups"),
        (nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(12)), "group", {"groups": 8},
         "1: 12 channels do not .* 8 groups\n  these divide the .* of every layer: 1, 2, 4$"),
        (fused_for_quantization(), "group", {}, "0.bn: ConvBnReLU2d computes with its statistics"),
        (Shared(), "none", {"example": torch.zeros(2, 3, 4, 4)},
         "the network fails with the example: RuntimeError: .*to have 4 channels"),
        (Shared(), "frozen", {"steps": -3}, "steps=-3\n  give a whole number, from 1 on"),
        (Shared(), "group", {"grops": 2}, r"norm.grops is not a key of kind .group."),
        (Shared(), "gruop", {}, "norm.kind must be .* not .gruop.\n  did you mean group?"),
        (Shared(), "frn", {}, "frn changes more than the norm layers"),
        (Shared(), "group", {"placement": "after"}, "the network decides itself where its norms"),
        (Shared(), "frozen", {}, "frozen changes on the way"),
        (Shared(torchvision.ops.FrozenBatchNorm2d), "group", {},
         "norm: FrozenBatchNorm2d keeps running statistics and is none of torch's"),
        (Shared(Computes), "group", {}, "norm: Computes keeps running statistics and is none of"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "instance",
         {"example": torch.zeros(2, 3)}, "1: 1 channel of 1 image on a 1×1 map"),
        (3, "group", {}, "the model is a int"),
        (Shared(), nn.GroupNorm(2, 4), {}, "the norm is a GroupNorm\n  give a kind"),
        (Shared(), nn.GroupNorm, {}, r"norm: GroupNorm\(4\) raised TypeError: .*num_channels"),
    ],
)  # fmt: skip
def test_refused(model: Any, norm: Any, keys: dict[str, Any], message: str) -> None:
    before = str(model)
    with pytest.raises(UsageError, match=f"^{message}"):
        bnbench.swap(model, norm, **keys)
    assert str(model) == before


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:FutureWarning")
def test_a_scripted_network_is_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm2d(4)))
    with pytest.raises(UsageError, match=r"^0: it is scripted: exchange before"):
        bnbench.swap(scripted, "group")


def test_dtype_device_and_mode_are_the_old_layers() -> None:
    model: Any = nn.Sequential(nn.BatchNorm2d(4).eval()).to(torch.bfloat16)
    model, _ = bnbench.swap(model, GroupNorm, groups=2, eps=0.5)
    norm = model.get_submodule("0.norm")
    assert isinstance(norm, GroupNorm)
    assert norm.weight is not None
    assert (norm.eps, norm.training, norm.weight.dtype) == (0.5, False, torch.bfloat16)
    assert model[0].training is False
