"""Networks that are written elsewhere, in runs: as they are built, from weights in a file."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from bnbench.config import schema
from bnbench.errors import ConfigError, StorageError
from tests.assemble.examples import CUSTOM, built, config, synthetic
from tests.custom_layers import build_small_unet

BATCH = schema.BatchNormConfig()
GROUP = schema.GroupNormConfig(kind="group", groups=2)
FROZEN = schema.FrozenNormConfig(kind="frozen", freeze_after=0.0)


def unet(**changed: Any) -> schema.CustomModel:
    target = changed.pop("target", f"{CUSTOM}:build_small_unet")
    return schema.CustomModel(kind="custom", target=target, norm="swap", **changed)


@pytest.fixture
def trained(tmp_path: Path) -> nn.Module:
    """A network that has seen images, and weights.pt."""
    torch.manual_seed(1)
    model = build_small_unet(in_channels=2, classes=3)
    model(torch.randn(8, 2, 8, 8) + 1)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pt")
    return model


def test_setups_share_all_weights_that_are_no_norms() -> None:
    states = [
        built(config(model=unet(), norm=norm)).model.state_dict()
        for norm in (BATCH, GROUP, schema.NoNorm(kind="none"))
    ]
    for state in states[1:]:
        shared = states[0].keys() & state.keys()
        assert len([key for key in shared if "norm" not in key]) == 6
        assert all(torch.equal(states[0][key], state[key]) for key in shared)
    assert {"down.0.bias", "bottom.0.bias", "up.bias", "out.0.bias"} < states[2].keys()


def test_timms_network_is_timms_but_for_its_norms() -> None:
    block = schema.TimmModel(kind="timm", name="test_resnet", options={"stem_type": "deep"})
    model = built(config(model=block, norm=BATCH)).model
    expected = timm.create_model("test_resnet", num_classes=3, in_chans=2, stem_type="deep")
    expected.load_state_dict(
        {key.replace(".norm.", "."): value for key, value in model.state_dict().items()}
    )
    x = torch.randn(4, 2, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model.double()(x), expected.double()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", [BATCH, GROUP, FROZEN])
def test_arms_start_from_the_weights_in_a_file(
    norm: Any, trained: nn.Module, tmp_path: Path
) -> None:
    block = unet(pretrained=str(tmp_path / "weights.pt"), init="he")
    model, x = built(config(model=block, norm=norm)).model, torch.randn(4, 2, 8, 8)
    for key, value in trained.state_dict().items():
        ours = model.state_dict().get(key, value)
        assert torch.equal(ours, value)
    if norm is not GROUP:
        torch.testing.assert_close(model.eval()(x), trained.eval()(x))
    if norm is FROZEN:  # and no batch changes what it computes
        torch.testing.assert_close(model.train()(x), trained(x))


def test_a_head_for_other_classes_is_drawn(tmp_path: Path, trained: nn.Module) -> None:
    block = unet(pretrained=str(tmp_path / "weights.pt"))
    heads: list[Any] = [
        built(config(model=block, data=synthetic(classes=5), norm=norm)).model.get_submodule("head")
        for norm in (BATCH, GROUP)
    ]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert heads[0].weight.shape == (5, 4) != trained.get_submodule("head").weight.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("up.weight"), r"1 missing \(up.weight\)$"),
        (lambda state: state.update(more=torch.ones(1)), r"1 unexpected \(more\)$"),
    ],
)
def test_weights_of_another_network(
    change: Any, message: str, trained: nn.Module, tmp_path: Path
) -> None:
    state = trained.state_dict()
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError) as refused:
        built(config(model=unet(pretrained=str(tmp_path / "w.pt"))))
    (fault,) = refused.value.faults
    assert fault.message.startswith("model.pretrained: ")
    assert re.search(f"w.pt is of another network: {message}", fault.message)
    assert fault.hint is not None


@pytest.mark.parametrize(
    ("key", "shape", "message", "hint"),
    [
        ("down.0.weight", (4, 3, 3, 3), "4×3×3×3 in it, and 4×2×3×3 in the network",
         "it is for images of 3 channels, and these have 2: give such images"),
        ("down.0.weight", (4, 2, 5, 5), "4×2×5×5 in it, and 4×2×3×3 in", "it must fit the network"),
        ("up.weight", (4, 3, 2, 2), "4×3×2×2 in it, and 8×4×2×2 in", "it must fit the network"),
        ("down.1.weight", (), "a single number in it, and 4 in the network", "it must fit"),
    ],
)  # fmt: skip
def test_weights_of_other_shapes(
    key: str, shape: tuple[int, ...], message: str, hint: str, trained: nn.Module, tmp_path: Path
) -> None:
    torch.save({**trained.state_dict(), key: torch.ones(shape)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError) as refused:
        built(config(model=unet(pretrained=str(tmp_path / "w.pt"))))
    (fault,) = refused.value.faults
    assert f"w.pt: {key} is {message}" in fault.message
    assert str(fault.hint).startswith(hint)


def test_networks_with_auxiliary_heads_return_one_output() -> None:
    block = schema.TorchvisionModel(
        kind="torchvision", name="googlenet", norm="swap", stem="imagenet"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = built(config(model=block, data=synthetic(image_size=32), norm=GROUP)).model
    assert model.train()(torch.randn(2, 2, 32, 32)).shape == (2, 3)


@pytest.mark.slow
def test_images_that_are_too_small_for_a_network_are_said_before_training() -> None:
    block = schema.TorchvisionModel(
        kind="torchvision", name="inception_v3", norm="swap", stem="imagenet"
    )
    with pytest.raises(ConfigError) as refused:
        built(config(model=block, data=synthetic(image_size=32), norm=GROUP))
    (fault,) = refused.value.faults
    assert "model.name: images of 32×32 do not go through inception_v3: " in fault.message
    assert "Inception v3: 75×75" in str(fault.hint)


def test_weights_inside_of_another_module(tmp_path: Path, trained: nn.Module) -> None:
    path, inner = tmp_path / "w.pt", {f"net.{k}": v for k, v in trained.state_dict().items()}
    torch.save({"epoch": 3, "weights": inner}, path)
    model = built(config(model=unet(pretrained=str(path)), norm=BATCH)).model
    assert torch.equal(model.get_parameter("up.weight"), trained.get_parameter("up.weight"))
    torch.save({**inner, "loss.weight": torch.ones(3)}, path)
    with pytest.raises(ConfigError, match=r"pretrained: of .*w\.pt only net\.\* is used; 1 other"):
        built(config(model=unet(pretrained=str(path))))
    torch.save({"student": inner, "teacher": inner}, path)
    with pytest.raises(StorageError, match=r"w\.pt holds 2 state dicts \(student, teacher\)"):
        built(config(model=unet(pretrained=str(path))))


def test_a_file_that_holds_no_weights(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"no")
    with pytest.raises(StorageError, match=r"w\.pt is not a checkpoint of PyTorch"):
        built(config(model=unet(pretrained=str(tmp_path / "w.pt"))))
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(StorageError, match=r"w\.pt holds no state dict"):
        built(config(model=unet(pretrained=str(tmp_path / "w.pt"))))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", r"model.target: it returns a int, not a torch.nn.Module"),
        ("raise KeyError('boo')", r"the network cannot be made: .*mine.py:2: KeyError: 'boo'"),
        ("import torch; return torch.nn.Flatten()", "the network has no BatchNorm layer"),
    ],
)
def test_what_a_function_may_do_wrong(body: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"def build(in_channels, classes):\n    {body}\n")
    with pytest.raises(ConfigError, match=message):
        built(config(model=unet(target=f"{tmp_path / 'mine.py'}:build")))


def test_without_timm_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r"timm is not installed\n  pip install 'bnbench\[timm\]'"
    ):
        built(config(model=schema.TimmModel(kind="timm", name="resnet18")))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (schema.TimmModel(kind="timm", name="resnet81"),
         '"resnet81" is not a model of timm\n  did you mean resnet'),
        (schema.TorchvisionModel(kind="torchvision", name="vgg11bn", norm="swap", stem="imagenet"),
         '"vgg11bn" is not a classifier of torchvision\n  did you mean vgg11_bn'),
    ],
)  # fmt: skip
def test_names_that_no_library_has(model: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(config(model=model))
