"""What a task of a cluster does: it trains its runs, is told to end, queues up again."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bnbench.cli.root import PlainConsole
from bnbench.config import schema
from bnbench.errors import ClusterError
from bnbench.runner import provenance
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.sweeps.jobs import SweepOptions, Trained
from bnbench.sweeps.slurm import share
from tests.executors import InProcess, in_process, sweep
from tests.extras import required
from tests.runs import evidence, experiment_in, small_config

submitit = required("submitit")


def seeds(count: int) -> list[schema.RunConfig]:
    return [small_config(seed=seed) for seed in range(count)]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., share.Share]]:
    """Makes tasks that train in this process."""
    monkeypatch.setattr("bnbench.sweeps.workers.Workers", InProcess)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "77")
    before = {each: signal.getsignal(each) for each in share.COMMIT_SECONDS}

    def make(**options: Any) -> share.Share:
        chosen = SweepOptions(environment=share.ENVIRONMENT, **options)
        command = ("bnbench", "sweep", "x")
        return share.Share(tuple(seeds(2)), 1, experiment_in(tmp_path), chosen, command)

    yield make
    for each, handler in before.items():
        signal.signal(each, handler)


def test_a_task_gives_the_bits_of_a_local_sweep(
    task: Callable[..., share.Share], tmp_path: Path
) -> None:
    task()()
    assert json.loads(experiment_in(tmp_path).kept(share.ENVIRONMENT)[share.ENVIRONMENT]) == (
        provenance.environment()
    ), "what the next task must have"
    local = experiment_in(tmp_path / "local")
    sweep(seeds(2), local, in_process(local), Screen(PlainConsole()), Stop())
    there = experiment_in(tmp_path)
    assert {run.name: evidence(run) for run in there.runs()} == {
        run.name: evidence(run) for run in local.runs()
    }
    assert share.ending(there, "77") is None
    manifest = there.runs()[0].manifest()
    assert manifest is not None
    assert manifest["command"] == ["bnbench", "sweep", "x"], "the driver's"


def test_another_kind_of_machine_is_refused_unless_it_is_accepted(
    task: Callable[..., share.Share], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = provenance.environment() | {"torch": "1.0"}
    experiment_in(tmp_path).keep({share.ENVIRONMENT: json.dumps(other).encode()})
    with pytest.raises(ClusterError, match=r"than this .* begun on: torch .* instead of 1\.0\n"):
        task()()
    ended = share.ending(experiment_in(tmp_path), "77")
    assert ended is not None
    assert "--accept-changes" in str(ended.do)
    assert not ended.told
    assert not experiment_in(tmp_path).runs()
    task(accept_changes=True)()
    assert "another kind of machine: torch" in capsys.readouterr().out
    assert len(experiment_in(tmp_path).runs()) == 2
    assert share.ending(experiment_in(tmp_path), "77") is None, "of an earlier attempt"


@pytest.mark.parametrize("commits", [True, False])
def test_at_its_time_limit_a_task_commits_and_queues_up(
    task: Callable[..., share.Share],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commits: bool,
) -> None:
    """Unless it has nothing to show for it: then it would do so forever."""
    queued: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: queued.append(number))
    performed = InProcess.answers

    def answers(self: InProcess, seconds: float) -> Any:
        found = performed(self, seconds) if commits else []
        if not commits or any(isinstance(answer, Trained) for _, answer in found):
            signal.raise_signal(signal.SIGUSR2)
        return found

    monkeypatch.setattr(InProcess, "answers", answers)
    monkeypatch.setattr(Stop, "commit_seconds", 0.0)
    monkeypatch.setattr(share, "COMMIT_SECONDS", dict.fromkeys(share.COMMIT_SECONDS, 0.0))
    task()()
    ended = share.ending(experiment_in(tmp_path), "77")
    assert queued == ([signal.SIGUSR2] if commits else [])
    assert (ended is None) == commits
    if ended is not None:
        assert "before any run had saved anything" in ended.what


def test_told_to_end_a_task_leaves_its_runs_to_others(
    task: Callable[..., share.Share], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(*_: object) -> list[Any]:
        signal.raise_signal(signal.SIGTERM)
        return []

    monkeypatch.setattr(InProcess, "answers", answers)
    monkeypatch.setattr(share, "COMMIT_SECONDS", dict.fromkeys(share.COMMIT_SECONDS, 0.0))
    task()()
    ended = share.ending(experiment_in(tmp_path), "77")
    assert ended is not None
    assert (ended.told, ended.what) == (True, "told to end by SIGTERM")
    assert task().checkpoint().function == task()


def test_what_is_no_text_hides_no_error(
    task: Callable[..., share.Share], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a character, as in a path that is none."""

    def fails(*_: object) -> None:
        raise ClusterError("cannot read /data/\udcff", do="rename \udcff")

    monkeypatch.setattr(share.Share, "_train", fails)
    with pytest.raises(ClusterError, match="cannot read"):
        task()()
    ended = share.ending(experiment_in(tmp_path), "77")
    assert ended == share.Ended("cannot read /data/?", "rename ?")


def test_a_torn_ending_is_none(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    for content in (b"", b"[]", b'{"do": "x"}', json.dumps(7).encode()):
        experiment.keep({"slurm/5_end.json": content})
        assert share.ending(experiment, "5") is None
