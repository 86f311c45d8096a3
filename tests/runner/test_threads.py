"""How many threads a run takes, what is said of more, and that neither changes its bits."""

from __future__ import annotations

import sys
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from bnbench.assemble import build_run
from bnbench.config import files, identity, loading, plans, schema
from bnbench.runner import settings, threads
from bnbench.runner.execution import execute
from bnbench.runner.settings import Executed, Settings, thread_limit
from bnbench.store import ExperimentFolder, RunRecord
from bnbench.sweeps import jobs
from bnbench.sweeps.forecast import is_missing, stored
from tests.injection import Killed, dying
from tests.processes import completed
from tests.runs import evidence, experiment_in, seal_again, small_config
from tests.stub import build_stub

AUTO = schema.ComputeConfig(threads="auto")


def recorded(run: Executed) -> list[int]:
    return [each["threads"] for each in (run.folder.manifest() or {})["fingerprints"]]


def steps_that_take(seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What is measured, invented; the numbers of threads that were asked about."""
    asked: list[list[int]] = []

    def invented(_: Any, numbers: list[int]) -> dict[int, float]:
        asked.append(list(numbers))
        return {number: seconds[number] for number in numbers}

    monkeypatch.setattr(threads, "step_seconds", invented)
    return asked


# --- the number ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "told", "limit"),
    [(8, None, 8), (8, "3", 3), (2, "16", 2), (8, "4,2", 4), (8, "", 8), (8, "0", 8), (8, "x", 8)],
)
def test_limit(monkeypatch: pytest.MonkeyPatch, cores: int, told: str | None, limit: int) -> None:
    monkeypatch.setattr(settings, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert thread_limit() == limit


def test_one_thread_whatever_the_machine_has(tmp_path: Path) -> None:
    """The bits are those of a sweep's worker, whose limit is 1."""
    alone = execute(small_config(), experiment_in(tmp_path / "a"), Settings(threads=2))
    worker = execute(small_config(), experiment_in(tmp_path / "b"), Settings())
    assert recorded(alone) == recorded(worker) == [1]
    assert evidence(alone.folder) == evidence(worker.folder)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 0.5, 4: 0.3, 6: 0.29}, 4),
        ({1: 1.0, 2: 0.95, 4: 1.2, 6: 3.0}, 1),
        ({1: 1.0, 2: 2.0, 4: 2.0, 6: 0.5}, 6),
        ({1: 1.0, 2: inf, 4: inf, 6: inf}, 1),
    ],
)
def test_auto_is_the_fewest_that_are_nearly_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], expected: int
) -> None:
    asked, said = steps_that_take(seconds, monkeypatch), list[str]()
    config = small_config(compute=AUTO)
    limit = Settings(threads=6, announce=said.append)
    run = execute(config, experiment_in(tmp_path), limit, build_stub)
    assert asked == [[1, 2, 4, 6]]
    assert recorded(run) == [expected]
    assert said == [f"compute.threads: auto is {expected}, the fastest now of 1 to 6"]


def test_auto_is_one_in_a_sweep_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = steps_that_take({}, monkeypatch)
    assert recorded(
        execute(small_config(compute=AUTO), experiment_in(tmp_path), Settings(), build_stub)
    ) == [1]
    assert asked == []


@pytest.mark.parametrize("wanted", [{}, {"threads": "auto"}, {"threads": 2}])
def test_a_run_that_goes_on_keeps_its_number(tmp_path: Path, wanted: dict[str, Any]) -> None:
    """Also one of an earlier version, which took every core where nothing was asked for."""
    begun = small_config(compute=schema.ComputeConfig(threads=2))
    with pytest.raises(Killed):
        execute(begun, experiment_in(tmp_path), Settings(), dying(build_stub, 8))
    again = small_config(compute=schema.ComputeConfig(**wanted))
    assert recorded(execute(again, experiment_in(tmp_path), Settings(), build_stub)) == [2]


def test_a_finished_run_of_an_earlier_version_is_not_missing(tmp_path: Path) -> None:
    config, experiment = small_config(), experiment_in(tmp_path)
    folder = execute(config, experiment, Settings(), build_stub).folder
    path = folder.path / "config.yaml"

    def found() -> RunRecord:
        ((_, record, _),) = stored([config], experiment)
        return record

    path.write_text(path.read_text().replace("threads: 1", "threads: auto"))
    assert "threads: auto" in path.read_text()
    seal_again(folder)
    assert found().state == "completed"
    assert not is_missing(found(), jobs.SweepOptions(retry_failed=True))
    path.write_text(path.read_text().replace("lr: 0.05", "lr: 0.06"))
    seal_again(folder)
    assert found().problem == (
        f"{path} is not the configuration that the folder is named after:\n"
        "  optim.lr: 0.06 in the folder, 0.05 given"
    )
    assert not is_missing(found(), jobs.SweepOptions())
    assert is_missing(found(), jobs.SweepOptions(retry_failed=True))
    path.write_text("{")
    seal_again(folder)
    assert found().state == "damaged"


def test_the_given_number_is_kept_on_its_way_to_a_worker(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("compute: {threads: 1}\n")
    asked = plans.expand(loading.load_experiment(tmp_path / "x.yaml")).only()
    (tmp_path / "x.yaml").write_text("compute: {device: cpu}\n")
    unasked = plans.expand(loading.load_experiment(tmp_path / "x.yaml")).only()
    assert threads._asked(asked)
    assert not threads._asked(unasked)
    assert "threads: 1" in files.dump(unasked)
    assert identity.run_id(asked) == identity.run_id(unasked)


# --- what a step takes --------------------------------------------------------------------


def test_measured_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With invented clocks: one thread takes 4 s a step, two take 1 s."""
    taken: list[int] = []
    run, _ = build_stub(small_config(train=schema.TrainConfig(steps=1000)), torch.device("cpu"))

    def stated(copied: Any) -> Any:
        while True:
            taken.append(torch.get_num_threads())
            copied.position.step += 1
            # The first two steps are slow, and do not count.
            slow = taken.count(taken[-1]) <= 2
            copied.position.train_seconds += 50.0 if slow else 4.0 / taken[-1] ** 2
            yield None

    monkeypatch.setattr(threads, "train", stated)
    monkeypatch.setattr(threads, "MEASURED_SECONDS", 12.0)
    assert threads.step_seconds(run, [1, 2]) == {1: 4.0, 2: 1.0}
    assert taken == [1, 1, 2, 2, *[1, 2, 2, 2, 2] * 3]
    assert torch.get_num_threads() == 1


def test_a_large_step_is_taken_three_times_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of threads takes no turns: two steps that do not count, and one that does."""
    run, _ = build_stub(small_config(train=schema.TrainConfig(steps=1000)), torch.device("cpu"))

    def stated(copied: Any) -> Any:
        while True:
            copied.position.step += 1
            copied.position.train_seconds += 4.0
            yield None

    monkeypatch.setattr(threads, "train", stated)
    assert threads.step_seconds(run, [1], seconds=3.0) == {1: 4.0}
    assert run.position.step == 3
    assert threads.step_seconds(run, [1], seconds=30.0) == {1: 4.0}
    assert run.position.step == 3 + 2 + 9, "three turns of ten seconds"


def test_a_run_without_enough_steps_tells_nothing() -> None:
    run, _ = build_stub(small_config(train=schema.TrainConfig(steps=2)), torch.device("cpu"))
    assert threads.step_seconds(run, [1, 2]) == {1: inf, 2: inf}


# --- advice -------------------------------------------------------------------------------


def advised(
    path: Path, config: schema.RunConfig, build: Any = build_stub, **changes: Any
) -> tuple[Executed, list[str]]:
    said: list[str] = []
    values: dict[str, Any] = {"threads": 2, "announce": said.append} | changes
    return execute(config, ExperimentFolder(path / "small"), Settings(**values), build), said


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run counts as long, after its first moment."""
    monkeypatch.setattr(threads, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(threads, "MEASURED_SECONDS", 0.0)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(("two", "advice"), [(0.5, True), (0.9, False)])
def test_more_threads_are_advised_once_where_they_are_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two: float, advice: bool
) -> None:
    asked = steps_that_take({1: 1.0, 2: two}, monkeypatch)
    _, said = advised(tmp_path, small_config())
    assert asked == [[1, 2]]
    line = "2 threads would be 2.0 times as fast now: --restart --set compute.threads=2 (or auto)"
    assert said == ([line] if advice else [])


def test_a_short_run_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MEASURED_SECONDS", 0.0)
    asked = steps_that_take({}, monkeypatch)
    assert advised(tmp_path, small_config())[1] == []
    assert asked == []


@pytest.mark.usefixtures("long")
def test_neither_is_who_asked_for_a_number_nor_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = steps_that_take({}, monkeypatch)
    one = small_config(compute=schema.ComputeConfig(threads=1))
    assert advised(tmp_path / "a", one)[1] == []
    assert advised(tmp_path / "b", small_config(), threads=1)[1] == []
    assert asked == []


@pytest.mark.usefixtures("long")
def test_the_measurement_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []
    step_seconds = threads.step_seconds

    def real(run: Any, numbers: Any) -> Any:
        monkeypatch.setattr(threads, "MEASURED_SECONDS", 1e-9)  # a step is enough
        measured.append(step_seconds(run, numbers))
        return measured[-1]

    monkeypatch.setattr(threads, "step_seconds", real)
    disturbed, _ = advised(tmp_path / "a", small_config(), build_run)
    assert len(measured) == 1
    assert max(measured[0].values()) < inf
    whole = execute(small_config(), experiment_in(tmp_path / "b"), Settings())
    assert evidence(disturbed.folder) == evidence(whole.folder)


@pytest.mark.usefixtures("long")
def test_a_network_that_cannot_be_copied_gets_no_advice(tmp_path: Path) -> None:
    def build(*arguments: Any, **options: Any) -> Any:
        run, facts = build_stub(*arguments, **options)
        run.model.held = (each for each in "generators cannot be copied")  # type: ignore[assignment]
        return run, facts

    assert advised(tmp_path, small_config(), build)[1] == []


def test_idle_threads_leave_their_core() -> None:
    code = (
        "import bnbench.__main__, os; print(os.environ['OMP_WAIT_POLICY'], 'torch' in __import__("
        "'sys').modules)"
    )
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        said = completed(sys.executable, "-c", code, env=given).stdout
        assert said == f"{expected} False\n"
