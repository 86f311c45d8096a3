"""Code of the user's that takes its time: what is waited for is said, and only then."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bnbench import guard
from bnbench.assemble import build_run
from bnbench.config import schema, trust
from bnbench.diagnosis.target import find_target
from bnbench.runner.execution import execute
from bnbench.runner.rehearsal import rehearse
from bnbench.runner.settings import Settings
from tests.processes import LIMIT
from tests.runs import experiment_in, small_config

LAYER = """
import threading
from torch import nn
PLACE, waited = {place!r}, []
def wait(here):
    if here == PLACE and len(waited) < 2:
        waited.append(here)
        threading.Timer.all_run_out()
wait("import")
class Slow(nn.Module):
    def __init__(self, channels):
        wait("make")
        super().__init__()
        self.scale = nn.Parameter(__import__("torch").ones(channels, 1, 1))
    def forward(self, x):
        wait("forward")
        return self.scale * x
"""


class Hourglass:
    """A timer that runs out when it is told to: a slow machine is not slow code."""

    def __init__(self, _seconds: float, call: Callable[[str], None], args: list[str]) -> None:
        self.call, self.args = call, args

    def start(self) -> None:
        RUNNING.append(self)

    def cancel(self) -> None:
        if self in RUNNING:
            RUNNING.remove(self)

    @staticmethod
    def all_run_out() -> None:
        while RUNNING:
            hourglass = RUNNING.pop()
            hourglass.call(*hourglass.args)


RUNNING: list[Hourglass] = []


def slow(folder: Path, place: str) -> schema.RunConfig:
    path = folder / f"{place}.py"
    path.write_text(LAYER.format(place=place))
    norm = schema.CustomNormConfig(kind="custom", target=f"{path}:Slow")
    train = schema.TrainConfig(steps=1, evaluations=1, evaluation_images=16)
    model = schema.PlainModel(widths=(4,), blocks=1)
    return small_config(norm=norm, train=train, model=model)


@pytest.fixture(autouse=True)
def _hourglasses(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNNING.clear()
    monkeypatch.setattr(threading, "Timer", Hourglass)


@pytest.mark.parametrize(
    ("place", "built", "rehearsed"),
    [("import", 1, 1), ("make", 1, 1), ("forward", 0, 1), ("nowhere", 0, 0)],
)
def test_what_is_waited_for_is_said_once(
    place: str, built: int, rehearsed: int, tmp_path: Path
) -> None:
    config, said = slow(tmp_path, place), list[str]()
    build_run(config, torch.device("cpu"), announce=said.append)
    line = f"waiting for {place}.py:Slow (norm.target)"
    assert said == [line] * built
    said.clear()
    if place == "import":  # another content is another module
        (tmp_path / "import.py").write_text(LAYER.format(place=place) + "\n")
    rehearse(config, Settings(announce=said.append))
    assert said == [line] * rehearsed
    said.clear()
    (tmp_path / f"{place}.py").write_text(LAYER.format(place=place) + "\n# again")
    execute(config, experiment_in(tmp_path), Settings(announce=said.append))
    assert [each for each in said if each.startswith("waiting")] == [line] * rehearsed


def test_a_function_that_is_diagnosed(tmp_path: Path) -> None:
    path = tmp_path / "t.py"
    path.write_text(
        "import threading, torch\nthreading.Timer.all_run_out()\n"
        "def make():\n    threading.Timer.all_run_out()\n    return torch.nn.BatchNorm1d(2), []\n"
    )
    said: list[str] = []
    find_target(f"{path}:make", None, 16, trust.Trust(lambda _: None), said.append)
    assert said == [f"waiting for {path} to be imported", f"waiting for {path}:make()"]


def test_nothing_of_ours_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Hourglass, "start", lambda self: self.call(*self.args))
    with guard.awaited("theirs", said.append), guard.awaited("", said.append):
        assert said.pop() == "waiting for theirs"
    rehearse(small_config(), Settings(announce=said.append))
    assert said == []


def test_time_runs_out_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(guard, "PATIENCE", 0.01)
    said = queue.Queue[str]()
    with guard.awaited("it", said.put):
        assert said.get(timeout=LIMIT) == "waiting for it"
