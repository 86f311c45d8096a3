"""Code that a configuration names: who runs it, who says so, and what if it is another by now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bnbench.config import custom, loading
from bnbench.store import RunFolder
from tests.commands import bnbench
from tests.runs import write_experiment

LAYER = """\
from pathlib import Path

from torch import nn

Path({marker!r}).touch()


class Scaled(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return {factor} * self.norm(x)
"""


@pytest.fixture(autouse=True)
def _wide(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  80 columns
    monkeypatch.setenv("COLUMNS", "400")


def said(*arguments: str, code: int = 0) -> str:
    """What a command prints in all."""
    found, out, err = bnbench(*arguments)
    assert found == code, out + err
    return out + err


def write_layer(factor: int = 1) -> Path:
    """A layer whose file leaves a marker where it is run."""
    marker = Path.cwd() / "ran"
    marker.unlink(missing_ok=True)
    Path("layer.py").write_text(LAYER.format(marker=str(marker), factor=factor))
    return marker


@pytest.fixture
def run() -> RunFolder:
    """A finished run with a layer of the user's own."""
    marker = write_layer()
    write_experiment(Path("study.yaml"), "norm: {kind: custom, target: layer.py:Scaled}\n")
    told = f"runs the code in {Path.cwd() / 'layer.py'} (norm.target)\n"
    assert told in said("train", "study.yaml", "--quiet")
    assert marker.exists()
    write_layer(factor=3)  # another content, and another marker
    (path,) = (each.parent for each in Path("runs/study").glob("*/config.yaml"))
    return RunFolder(path)


def test_weights_are_not_put_into_code_that_has_changed(run: RunFolder) -> None:
    marker, file = Path("ran"), Path.cwd() / "layer.py"
    refused = said("diagnose", str(run.path), code=2)
    assert f"runs the code in {file} (norm.target)\n" in refused
    assert refused.endswith(
        f"{run.path}: config.yaml or {file} has changed since the run was trained\n"
        "  undo the change, or go on all the same: --accept-changes\n"
    )
    assert not marker.exists(), "it was not run"
    assert "warning: " in said("diagnose", str(run.path), "--accept-changes")
    assert marker.exists()
    write_layer()
    assert "has changed" not in said("diagnose", str(run.path))


def test_a_stored_configuration_is_not_trained_with_other_code(run: RunFolder) -> None:
    """It would be another run; under its own name it has nothing to continue."""
    config = str(run.path / "config.yaml")
    assert "has changed since the run was trained" in said("train", config, "--quiet", code=2)
    assert not Path("ran").exists()
    said("train", config, "--quiet", "--accept-changes")
    assert len(list(Path("runs/study").glob("*/result.json"))) == 2
    said("train", "study.yaml", "--quiet", code=0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "study.yaml"),
        ("train", "{run}/config.yaml"),
        ("sweep", "study.yaml"),
        ("sweep", "study.yaml", "--dry-run"),
        ("diagnose", "{run}"),
        ("diagnose", "layer.py:make"),
    ],
)
def test_no_custom_runs_none(run: RunFolder, arguments: tuple[str, ...]) -> None:
    typed = [each.format(run=run.path) for each in arguments]
    refused = said(*typed, "--no-custom", code=2)
    assert "layer.py" in refused
    assert "leave out --no-custom" in refused
    assert not Path("ran").exists()


def test_who_only_reads_runs_none(run: RunFolder) -> None:
    second = shutil.copytree(run.path, run.path.with_name("b" + run.name))
    said("sweep", "study.yaml", "--no-custom", code=2)
    for arguments in (
        ("status",),
        ("status", "study"),
        ("report", "study"),
        ("compare", str(run.path), str(second)),
        ("tensorboard", "study", "--rebuild"),
        ("configs", "show", str(run.path / "config.yaml")),
        ("configs", "show", "study.yaml", "--resolved"),
        ("configs", "check", str(run.path / "config.yaml")),
    ):
        said(*arguments)
        assert not Path("ran").exists(), arguments


def test_a_run_with_the_checkpoint_of_another_is_not_diagnosed(run: RunFolder) -> None:
    said("train", "study.yaml", "--seed", "1", "--quiet")
    (other,) = Path("runs/study").glob("*_s01_*")
    write_layer()
    shutil.copy(other / "checkpoint.pt", run.path)
    refused = said("diagnose", str(run.path), code=4)
    assert f"{run.path / 'checkpoint.pt'} is the checkpoint of another run\n" in refused


def test_a_file_of_the_users_own_is_read_through_a_link() -> None:
    """`last.pt` is often one."""
    Path("net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make():\n"
        "    data = [(torch.randn(8, 3), torch.arange(8) % 2) for _ in range(4)]\n"
        "    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), data\n"
    )
    torch.save(
        torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict(), "9.pt"
    )
    Path("last.pt").symlink_to("9.pt")
    said("diagnose", "net.py:make", "--checkpoint", "last.pt")
    Path("text.pt").write_text("no checkpoint\n")
    refused = said("diagnose", "net.py:make", "--checkpoint", "text.pt", code=4)
    assert "text.pt is not a checkpoint of PyTorch, or damaged\n  save it with" in refused


def test_what_a_run_executes_is_named_by_its_keys(run: RunFolder) -> None:
    config = loading.load_run(run.path)
    assert custom.targets(config) == {"norm.target": (Path.cwd() / "layer.py", "Scaled")}
