"""Code of the user's own over several runs, while it changes, and where it is moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import Trained
from tests.commands import bnbench
from tests.executors import InProcess
from tests.runs import evidence, small_config, write_experiment

pytestmark = pytest.mark.usefixtures("own_folder")

LAYER = "from torch import nn\n\nclass Layer(nn.BatchNorm2d):\n    pass\n"
NORM = "{{kind: custom, target: {}.py:Layer}}"
NETWORK = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

made = []

def build(**given):
    made[:] = made or [Net(**given)]
    return made[0]
"""


def test_a_network_that_is_kept_in_a_global_is_made_anew_for_each_run() -> None:
    Path("net.py").write_text(NETWORK)
    target = f"{Path.cwd() / 'net.py'}:build"
    model = schema.CustomModel(kind="custom", target=target, norm="swap")
    found = []
    for folder, seeds in (("both", (0, 1)), ("alone", (1,))):
        for seed in seeds:
            config = small_config(model=model, seed=seed)
            done = execute(config, ExperimentFolder(Path(folder)), Settings())
        found.append(evidence(done.folder))
    assert found[0] == found[1]


def test_files_that_change_during_a_sweep_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("layer.py").write_text(LAYER)
    write_experiment(
        Path("study.yaml"), f"setups: {{a: {{norm: {NORM.format('layer')}}}}}\nseeds: 2\n"
    )
    answers = InProcess.answers

    def edited(self: InProcess, seconds: float) -> Any:
        found = answers(self, seconds)
        if any(isinstance(answer, Trained) for _, answer in found):
            Path("layer.py").write_text(f"{LAYER}# {len([*Path('runs/study').iterdir()])}\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "answers", edited)
        code, _, err = bnbench("sweep", "study.yaml", "--quiet")
    assert code == 0
    assert "warning: files of your own changed during the sweep" in err
    assert "warning" not in bnbench("sweep", "study.yaml", "--quiet").err


def test_a_mistyped_file_is_not_looked_for_elsewhere() -> None:
    """Also if the user's file has the name of one that we keep."""
    Path("layer.py").write_text(LAYER)
    Path("study").mkdir()
    own = Path("study/experiment.yaml")
    write_experiment(own, f"setups: {{a: {{norm: {NORM.format('cod/layer')}}}}}\n")
    assert bnbench("sweep", str(own), "--dry-run").code == 2


def test_a_project_is_moved_with_its_runs() -> None:
    Path("old/code").mkdir(parents=True)
    Path("old/code/layer.py").write_text(LAYER)
    norm = NORM.format("code/layer")
    write_experiment(Path("old/study.yaml"), f"setups: {{a: {{norm: {norm}}}, b: {{}}}}\n")
    assert bnbench("sweep", "old/study.yaml", "--quiet", "--runs-dir", "old/runs").code == 0
    Path("old").rename("new")
    runs = ("--runs-dir", "new/runs")
    assert "2 completed" in bnbench("sweep", "new/study.yaml", "--dry-run", *runs).out
    for command in (("report", "study"), ("sweep", "new/study.yaml", "--quiet")):
        said = bnbench(*command, *runs)
        assert said.code == 0, said.err
        assert "damaged" not in said.err
        assert "cannot be read" not in said.out
