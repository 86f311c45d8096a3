"""What `--dry-run` says: which runs, in which state, at what cost."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.filesize import decimal

from bnbench import store
from bnbench.config import files, identity, schema
from bnbench.errors import RunError, StorageError
from bnbench.runner import rehearsal
from bnbench.runner.execution import execute
from bnbench.runner.rehearsal import measure
from bnbench.runner.settings import Cost, Settings, Stop, recorded_bytes
from bnbench.sinks.terminal import Screen, duration
from bnbench.store import ExperimentFolder, encode_records
from bnbench.sweeps import forecast as forecasting
from bnbench.sweeps import schedule
from bnbench.sweeps.forecast import WORKER_SECONDS, Forecast, as_lines
from bnbench.sweeps.jobs import Answer, Check, Executor, Found, Job, Lost, Measure, SweepOptions
from tests.executors import faults_of, in_process
from tests.runs import (
    MANIFEST,
    a_result,
    end,
    experiment_in,
    no_norm_config,
    quiet_console,
    small_config,
)
from tests.stub import build_stub


class Measuring:
    """An executor that knows what runs cost, and remembers of which it was asked."""

    queues = False

    def __init__(self, costs: dict[str, Cost], size: int = 2) -> None:
        self.size = size
        self.asked: list[schema.RunConfig] = []
        self._costs = costs
        self._now: list[Job] = []

    def start(self, _: int) -> None:
        raise AssertionError

    def submit(self, job: Job) -> None:
        if isinstance(job, Measure):
            self.asked.append(job.config)
        self._now.append(job)

    def answers(self, _: float) -> list[tuple[Job, Any]]:
        job = self._now.pop()
        if isinstance(job, Check):
            return [(job, Found(()))]
        assert isinstance(job, Measure)
        return [(job, Found(self._costs[job.config.setup]))]

    def ask_to_stop(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


def forecast(
    runs: list[schema.RunConfig],
    experiment: ExperimentFolder,
    executor: Executor[Job, Answer],
    **options: Any,
) -> Forecast:
    """A forecast of runs that are of no file."""
    return forecasting.forecast(runs, experiment, executor, SweepOptions(**options), faults_of)


STEP = {"step": 12, "examples": 96, "train_seconds": 1.0}
COSTS = {"bn": Cost(40.0, 2_000_000), "none": Cost(10.0, 1_000_000)}


def finish(experiment: ExperimentFolder, config: schema.RunConfig, seconds: float) -> int:
    """Let a run be finished after so many seconds; its bytes on disk."""
    folder = experiment.run(identity.run_id(config))
    end(folder, files.dump(config), a_result(wall_seconds=seconds))
    return sum(path.stat().st_size for path in folder.path.iterdir())


def test_finished_seeds_tell_the_cost_and_only_unknown_work_is_measured(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    runs = [small_config(seed=seed) for seed in range(3)]
    # A learning rate or a seed changes nothing about the work: one of these four is measured.
    runs += [
        no_norm_config(seed=seed, optim=small_config().optim.model_copy(update={"lr": lr}))
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    size = finish(experiment, runs[0], seconds=7.0)
    executor = Measuring(COSTS)
    found = forecast(runs, experiment, executor)
    assert executor.asked == [runs[3]]
    assert [run.state for run in found.runs] == ["completed"] + ["new"] * 6
    assert [Cost(run.seconds, run.bytes) for run in found.runs] == [
        Cost(0.0, 0),
        *[Cost(7.0, size)] * 2,
        *[COSTS["none"]] * 4,
    ]
    assert [run.measured for run in found.runs] == [False] * 3 + [True] * 4
    # 10, 10, 7 and 10, 10, 7 side by side.
    assert (found.seconds, found.bytes) == (WORKER_SECONDS + 27.0, 2 * size + 4_000_000)


def test_of_several_seeds_the_most_expensive_counts(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    runs = [small_config(seed=seed) for seed in range(4)]
    sizes = [
        finish(experiment, run, seconds)
        for run, seconds in zip(runs, (3.0, 5.0, 1.0), strict=False)
    ]
    found = forecast(runs, experiment, Measuring({}))
    assert (found.runs[3].seconds, found.runs[3].bytes) == (5.0, max(sizes))


def test_an_interrupted_run_costs_what_is_left_of_it(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    config = small_config()
    folder = experiment.run(identity.run_id(config))
    folder.begin(config_text=files.dump(config), manifest=MANIFEST)
    metrics = folder.metrics(keep=0)
    metrics.append(
        encode_records([{"event": "step", "loss": 1.0, "loss_max": 1.0, "lr": 0.1} | STEP])
    )
    metrics.close()
    (run,) = forecast([config], experiment, Measuring(COSTS)).runs
    assert run.state == "interrupted"
    assert run.seconds == pytest.approx(40.0 * 4 / 16)
    (run,) = forecast([config], experiment, Measuring(COSTS), restart=True).runs
    assert run.seconds == 40.0


@pytest.mark.parametrize(
    ("options", "of_the_machine", "trains"),
    [({}, False, False), ({}, True, True), ({"retry_failed": True}, False, True)],
)
def test_failed_runs_count_only_if_a_sweep_tries_them_again(
    tmp_path: Path, options: dict[str, bool], of_the_machine: bool, trains: bool
) -> None:
    experiment = experiment_in(tmp_path)
    folder = experiment.run(identity.run_id(small_config()))
    folder.begin(config_text=files.dump(small_config()), manifest=MANIFEST)
    folder.fail({"message": "out of luck", "of_the_machine": of_the_machine})
    found = forecast([small_config()], experiment, Measuring(COSTS), **options)
    assert (found.runs[0].state, found.runs[0].trains) == ("failed", trains)
    assert found.seconds == (WORKER_SECONDS + 40.0 if trains else 0.0)


def test_a_queue_has_as_many_tasks_as_there_is_work(tmp_path: Path) -> None:
    """Each has ten minutes of it, two runs at a time: 60 runs of 40 s are two tasks."""

    class Queue(Measuring):
        queues = True

    runs = [small_config(seed=seed) for seed in range(60)]
    for workers, expected in (("auto", 4), ("7", 14), ("99", 60)):
        found = forecast(runs, experiment_in(tmp_path), Queue(COSTS), workers=workers)
        assert found.workers == expected


def test_a_damaged_folder_is_listed(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    finish(experiment, small_config(), 1.0)
    (experiment.run(identity.run_id(small_config())).path / "result.json").write_text("{")
    (run,) = forecast([small_config()], experiment, Measuring(COSTS)).runs
    assert (run.state, run.trains) == ("damaged", False)
    (run,) = forecast([small_config()], experiment, Measuring(COSTS), retry_failed=True).runs
    assert run.trains


def test_a_worker_that_dies_while_measuring_is_an_error(tmp_path: Path) -> None:
    class Dying(Measuring):
        def answers(self, _: float) -> list[tuple[Job, Any]]:
            if isinstance(self._now[0], Check):
                return super().answers(_)
            return [(self._now.pop(), Lost("was killed by SIGSEGV", at_start=False))]

    with pytest.raises(RunError, match="cannot be measured: its worker was killed by SIGSEGV"):
        forecast([small_config()], experiment_in(tmp_path), Dying(COSTS))


def test_a_worker_that_dies_at_its_start_is_not_the_run_s_fault(tmp_path: Path) -> None:
    class Unlucky(Measuring):
        def answers(self, _: float) -> list[tuple[Job, Any]]:
            if len(self.asked) == 1:
                return [(self._now.pop(), Lost("was killed by SIGKILL", at_start=True))]
            return super().answers(_)

    (run,) = forecast([small_config()], experiment_in(tmp_path), Unlucky(COSTS)).runs
    assert Cost(run.seconds, run.bytes) == COSTS["bn"]


def test_lines_and_json(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    runs = [small_config(), no_norm_config()]
    found = forecast(runs, experiment, Measuring(COSTS))
    lines = as_lines(found)
    assert lines[:4] == [
        "seeds  training    disk  cell",
        "1 new      40 s  2.0 MB  bn",
        "1 new      10 s  1.0 MB  none",
        "2 runs in 2 cells: 2 new",
    ]
    assert lines[4].startswith("to train: 2, about 44 s with 2 workers, done at ")
    assert "; 3.0 MB of " in lines[4]
    record = asdict(found)
    assert record["seconds"] == WORKER_SECONDS + 40.0
    assert record["bytes"] == 3_000_000
    assert datetime.fromisoformat(record["finish"]).utcoffset() == timedelta(0)
    assert [run["run"] for run in record["runs"]] == [identity.run_id(run) for run in runs]
    assert not experiment.path.exists(), "a forecast writes nothing"


def test_nothing_to_train(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    finish(experiment, small_config(), 1.0)
    found = forecast([small_config()], experiment, Measuring({}))
    assert (found.seconds, found.bytes) == (0.0, 0)
    assert as_lines(found)[2:] == ["1 run in 1 cell: 1 completed", "nothing to train"]


def test_a_line_for_each_cell_with_what_its_seeds_take_together(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path)
    runs = [
        small_config(
            seed=seed,
            swept=("optim.lr",),
            optim=small_config().optim.model_copy(update={"lr": lr}),
        )
        for seed in range(3)
        for lr in (0.1, 0.2)
    ]
    finish(experiment, runs[0], seconds=7.0)
    lines = as_lines(forecast(runs, experiment, Measuring(COSTS)))
    assert [line.partition("  ")[0] for line in lines[1:3]] == ["1 completed, 2 new", "3 new"]
    assert [line.split("  ")[-1] for line in lines[1:3]] == [
        "bn at learning rate 0.1",
        "bn at learning rate 0.2",
    ]
    assert " 14 s  " in lines[1], "two of 7 s, as the one that has ended"
    assert " 2 min  6.0 MB  " in lines[2]
    assert lines[3] == "6 runs in 2 cells: 1 completed, 5 new"


def test_measuring_leaves_no_trace_and_knows_the_size(tmp_path: Path) -> None:
    """Seconds cannot be asserted; bytes can: those of the run that is then trained."""
    config = small_config()
    experiment = experiment_in(tmp_path)
    cost = measure(config, Settings())
    assert cost.seconds > 0
    assert list(tmp_path.iterdir()) == []
    actual = execute(config, experiment, Settings()).folder.size()
    assert actual / 2 < cost.bytes < actual * 2
    found = forecast([no_norm_config()], experiment, in_process(experiment))
    assert found.runs[0].measured


def test_other_work_of_the_machine_is_no_cost_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that gets a quarter of a core: the run takes a quarter of what the clock says."""
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(time, "thread_time", lambda: next(clock) / 4)
    monkeypatch.setattr(rehearsal, "step_seconds", lambda *_, **__: {1: 0.001})
    cost = measure(small_config(), Settings(device="cpu"))
    assert cost.pace == 4.0
    found = forecast([small_config()], experiment_in(tmp_path), Measuring({"bn": cost}))
    total, basis = as_lines(found)[-2:]
    assert total.startswith(f"to train: 1, about {duration(cost.pace * found.seconds)} with ")
    assert basis == (
        "estimated from a few training steps, slowed by other work or waiting, without that "
        f"about {duration(found.seconds)}"
    )
    calm = forecast([small_config()], experiment_in(tmp_path), Measuring(COSTS))
    assert "slowed" not in "".join(as_lines(calm))


def test_a_sweep_that_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first run by what runs record, after it by what that took, which is kept."""
    runs = [small_config(seed=seed) for seed in range(4)]
    experiment, least = experiment_in(tmp_path), recorded_bytes(runs[0])
    monkeypatch.setattr(execute, "__defaults__", (build_stub,))
    begun: list[bool] = []

    def sweep() -> None:
        with Screen(quiet_console(), runs=4) as screen:
            executor = in_process(experiment)
            schedule.sweep(
                runs, experiment, executor, screen, Stop(), SweepOptions(), faults_of,
                lambda: begun.append(True),
            )  # fmt: skip

    monkeypatch.setattr(forecasting, "free_bytes", lambda _: 4 * least - 1)
    with pytest.raises(StorageError) as refused:
        sweep()
    said = str(refused.value)
    assert said.startswith(f"{experiment.path}: 4 runs will take {decimal(4 * least)} or more, and")
    assert "free some space and run the same command again" in said
    assert not experiment.path.exists()
    assert begun == []
    then = iter([4 * least, 1])
    monkeypatch.setattr(forecasting, "free_bytes", lambda _: next(then))
    with pytest.raises(StorageError, match="3 runs will take"):
        sweep()
    assert [store.read(run).state for run in experiment.runs()] == ["completed"]
    size = experiment.runs()[0].size()
    monkeypatch.setattr(forecasting, "free_bytes", lambda _: 3 * size)
    sweep()
    assert [store.read(run).state for run in experiment.runs()] == ["completed"] * 4
