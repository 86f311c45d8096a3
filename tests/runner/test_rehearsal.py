"""What is found out about a run before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bnbench.config import schema
from bnbench.errors import ConfigError
from bnbench.runner.execution import execute
from bnbench.runner.rehearsal import CUDA_CONTEXT_BYTES, MEMORY_SHARE, check, fitting, rehearse
from bnbench.runner.settings import Fitting, Settings
from bnbench.store import ExperimentFolder
from tests.runs import small_config


def test_a_cpu_has_no_memory_of_its_own() -> None:
    assert fitting(small_config(), Settings(device="cpu")) is None


def test_runs_that_fit_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 400 MB of a device of which 10 GB are free: with the context, 1 GB a run."""
    free = iter([10_000_000_000, 9_600_000_000])
    monkeypatch.setattr("bnbench.runner.rehearsal.resolve_device", lambda *_: torch.device("cuda"))
    monkeypatch.setattr("bnbench.runner.rehearsal.rehearse", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (next(free), 0))
    one = 400_000_000 + CUDA_CONTEXT_BYTES
    expected = int(MEMORY_SHARE * (9_600_000_000 + one) / one)
    assert fitting(small_config(), Settings()) == Fitting(expected) == Fitting(9)


@pytest.mark.parametrize(("device", "expected"), [("cuda", Fitting(4, gpus=4)), ("cpu", None)])
def test_of_several_gpus_each_gets_one_run(
    device: str, expected: Fitting | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert fitting(small_config(), Settings(device=device)) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_runs_that_fit_a_real_device() -> None:
    found = fitting(small_config(), Settings(device="cuda:0"))
    assert found is not None
    assert found.runs > found.gpus == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "__init__(self, channels):\n        raise KeyError('boo')",
            "the network cannot be made: layer.py:5: KeyError: 'boo'",
        ),
        (
            "forward(self, x):\n        return x.reshape(7, 7)",
            "the first step fails: layer.py:5: RuntimeError: shape",
        ),
    ],
)
def test_custom_code_that_fails_names_the_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "layer.py"
    path.write_text(f"from torch import nn\n\nclass Breaks(nn.Identity):\n    def {body}\n")
    norm = schema.CustomNormConfig(kind="custom", target=f"{path}:Breaks")
    with pytest.raises(ConfigError, match=f"^setup mine: {message}"):
        rehearse(small_config(setup="mine", norm=norm), Settings())


NETWORK = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, classes, make_norm):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3), make_norm(4))
        self.head, self.classes = nn.Conv2d(4, %s, 1), classes

    def forward(self, x):
        y = self.head(self.body(x)).mean((2, 3))
        return %s
"""


@pytest.mark.parametrize(
    ("outputs", "returned", "message"),
    [
        ("classes", "{'logits': y}", "a dict (return (8, 4): a row for each image, an output a "),
        ("classes", "(y, y)", "a tuple (return (8, 4)"),
        ("classes", "y.detach().numpy()", "a ndarray"),
        ("classes", "y[:3]", "3×4 of float32 (return (8, 4)"),
        ("classes", "y[..., None, None]", "8×4×1×1 of float32 (return (8, 4): a row for each "
         "image, an output a class; of a map, for example y.mean((2, 3)))"),
        ("classes", "y.argmax(1)", "8 of int64"),
        ("classes - 1", "y", "3 outputs an image, for 4 classes"),
        ("classes", "y", None),
    ],
)  # fmt: skip
def test_what_a_network_returns_that_is_no_row_an_image(
    outputs: str, returned: str, message: str | None, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NETWORK % (outputs, returned))
    model = schema.CustomModel(kind="custom", target=f"{tmp_path / 'net.py'}:Net")
    run = small_config(model=model, setup="a")
    if message is None:
        rehearse(run, Settings())
        return
    with pytest.raises(ConfigError) as refused:
        rehearse(run, Settings())
    assert f"the first step fails: the network returns {message}" in str(refused.value)


@pytest.mark.parametrize(
    ("outputs", "returned", "said"),
    [
        ("classes + 2", "y", "has 6 outputs for 4 classes: the others are never right"),
        ("classes", "y.softmax(1)", "ends in a softmax, and so does the loss: leave it out"),
    ],
)
def test_outputs_that_the_loss_does_not_mean_are_said_by_rehearsal_and_run(
    outputs: str, returned: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NETWORK % (outputs, returned))
    model = schema.CustomModel(kind="custom", target=f"{tmp_path / 'net.py'}:Net")
    said = f"warning: the network {said}"
    told: list[str] = []
    settings, config = Settings(announce=told.append), small_config(model=model, setup="a")
    assert check([config], settings) == []
    assert told == [said]
    told.clear()
    execute(config, ExperimentFolder(tmp_path / "runs"), settings)
    assert told == [said]


def test_every_network_that_cannot_train_is_named_whoever_has_made_it(tmp_path: Path) -> None:
    path = tmp_path / "layer.py"
    path.write_text("def Breaks(channels):\n    ...\n")
    custom = schema.CustomNormConfig(kind="custom", target=f"{path}:Breaks")
    group = schema.GroupNormConfig(kind="group", groups=3)
    fine = small_config(setup="fine")
    mine = small_config(setup="mine", norm=custom)
    theirs = small_config(
        setup="theirs", model=schema.TorchvisionModel(kind="torchvision", name="resnet18")
    )
    runs = [fine, mine, mine.model_copy(update={"seed": 1}), small_config(setup="gn", norm=group)]
    found = [(c.setup, c.seed, o.keys[0], o.message) for c, o in check([*runs, theirs], Settings())]
    assert found == [
        (
            "gn",
            0,
            "norm.groups",
            "norm.groups: 4 channels do not split into 3 groups (model.widths)",
        ),
        ("mine", 0, "norm.target", "norm.target: Breaks is not a torch.nn.Module"),
    ]
