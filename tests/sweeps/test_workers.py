"""Real worker processes: what happens to one of them happens to its run alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bnbench import store
from bnbench.config import identity, schema
from bnbench.errors import RunError
from bnbench.events import Finished
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings, Stop
from bnbench.sinks.terminal import Screen
from bnbench.sweeps.jobs import (
    Answer,
    End,
    Failed,
    Job,
    Lost,
    Said,
    Stated,
    Stopped,
    SweepOptions,
    Train,
    Trained,
)
from bnbench.sweeps.workers import FAILED_STARTS, Workers
from tests.executors import sweep, workers_in
from tests.processes import LIMIT, lives, started, wait_until
from tests.runs import (
    committed_step,
    evidence,
    experiment_in,
    quiet_console,
    small_config,
)

TROUBLE = '''
"""A layer that does to its process what a file beside it says, once for each of its lines."""
import os, signal, sys, time
from pathlib import Path
from torch import nn

class Trouble(nn.Identity):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        orders = Path(__file__).with_name("orders")
        lines = orders.read_text().splitlines() if orders.exists() else []
        if lines:
            orders.write_text("".join(f"{line}\\n" for line in lines[1:]))
            print("about to", lines[0])
            exec(lines[0])
        return x
'''


def in_trouble(path: Path, *orders: str, seed: int = 0) -> schema.RunConfig:
    """A run whose layer follows the orders, one in each forward pass."""
    (path / "trouble.py").write_text(TROUBLE)
    (path / "orders").write_text("".join(f"{order}\n" for order in orders))
    norm = schema.CustomNormConfig(kind="custom", target=f"{path / 'trouble.py'}:Trouble")
    return small_config(setup="trouble", norm=norm, seed=seed)


def long_config(steps: int = 4000) -> schema.RunConfig:
    """A run that takes long enough to be disturbed."""
    config = small_config()
    train = config.train.model_copy(
        update={"epochs": None, "steps": steps, "checkpoint_every": 10, "evaluations": 1}
    )
    return config.model_copy(update={"train": train})


def processes() -> list[int]:
    """The ids of the living workers' processes."""
    return [each.pid for each in multiprocessing.active_children() if each.pid is not None]


def until_end(workers: Workers) -> list[Answer]:
    """All answers up to the end of the one job that is being done."""
    answers: list[Answer] = []
    deadline = time.monotonic() + LIMIT
    while not (answers and isinstance(answers[-1], End)):
        assert time.monotonic() < deadline, answers
        answers += [answer for _, answer in workers.answers(0.1)]
    return answers


def trained(folder: Path, config: schema.RunConfig) -> dict[str, Any]:
    """What the run leaves behind where nobody disturbs it."""
    return evidence(execute(config, experiment_in(folder), Settings()).folder)


PATCHING = """
import tempfile
import torch
from torch import nn

kept = tempfile.TemporaryDirectory(prefix="kept-")  # as W&B has them
was = torch.nn.functional.cross_entropy
torch.nn.functional.cross_entropy = lambda *arguments, **more: was(*arguments, **more) / 2

class Patching(nn.Identity):
    def __init__(self, channels):
        super().__init__()
"""


@pytest.mark.slow
def test_what_a_layer_changes_reaches_no_run_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "patching.py").write_text(PATCHING)
    norm = schema.CustomNormConfig(kind="custom", target=f"{tmp_path / 'patching.py'}:Patching")
    experiment, used = experiment_in(tmp_path), list[int]()
    runs = [
        config
        for seed in (0, 1)
        for config in (
            small_config(setup="patching", norm=norm, seed=seed),
            small_config(seed=seed),
        )
    ]

    class Watched(Workers):
        def submit(self, job: Job) -> None:
            super().submit(job)
            used.extend(processes())

    with closing(Watched(SweepOptions())) as workers:
        workers.turn_to(1, experiment)
        outcome = sweep(runs, experiment, workers, Screen(quiet_console(), runs=4), Stop())
    assert (outcome.trained, outcome.failures) == (4, [])
    # Two networks checked and four runs trained, without the layer before with it: its check is
    # all that a worker is ended for.
    first, second = dict.fromkeys(used)
    assert used == [first, first, second, second, second, second]
    found = evidence(experiment.run(identity.run_id(runs[1])))
    assert found == trained(tmp_path / "alone", runs[1])
    assert not list(tmp_path.glob("kept-*")), "a worker ends as a process does"


@pytest.mark.slow
def test_a_worker_does_one_job_after_the_other(tmp_path: Path) -> None:
    """In one test, since a worker takes seconds to start."""
    experiment = experiment_in(tmp_path)
    warns = "import warnings; warnings.warn('mind the gap')"
    with closing(workers_in(experiment)) as workers:
        # It trains, and sends what there is to see.
        config = small_config()
        workers.submit(Train(config))
        (worker,) = processes()
        *answers, end = until_end(workers)
        assert isinstance(end, Trained)
        assert not end.found
        stated = [answer for answer in answers if isinstance(answer, Stated)]
        last = stated[-1].moments[-1]
        assert (last.step, last.examples, last.facts[-1]) == (16, 128, Finished())
        assert evidence(experiment.run(identity.run_id(config))) == trained(
            tmp_path / "whole", config
        )

        # What a layer prints and warns is passed on.
        workers.submit(Train(in_trouble(tmp_path, warns)))
        said = [answer.line for answer in until_end(workers) if isinstance(answer, Said)]
        assert said[0].startswith("about to import warnings")
        assert said[1] == "warning: UserWarning: mind the gap"

        # Whatever it raises is an answer, and what it raises elsewhere a line.
        elsewhere = "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start()"
        raised = {
            "1 / 0": "ZeroDivisionError: division by zero",
            "sys.exit(0)": "SystemExit: 0",
            "raise KeyboardInterrupt": "KeyboardInterrupt",
            "raise GeneratorExit": "GeneratorExit",
        }
        for seed, (order, what) in enumerate(raised.items(), start=1):
            workers.submit(Train(in_trouble(tmp_path, f"{elsewhere}; t.join()", order, seed=seed)))
            *answers, end = until_end(workers)
            assert isinstance(end, Failed)
            assert not end.hopeless
            assert end.error.what == f"the run failed: {tmp_path / 'trouble.py'}:17: {what}"
            lines = [answer.line for answer in answers if isinstance(answer, Said)]
            assert not any("Traceback" in line for line in lines)
            assert any("warning: " in line for line in lines) == (seed == 1), "once is enough"
        assert processes() == [worker], "one process did it all"

        # Asked to stop, it commits.
        config = long_config()
        workers.submit(Train(config))
        seen = [0]

        def steps() -> int:
            answers = [answer for _, answer in workers.answers(0.1)]
            seen.extend(each.moments[-1].step for each in answers if isinstance(each, Stated))
            return seen[-1]

        wait_until(lambda: steps() >= 50)
        workers.ask_to_stop()
        assert isinstance(until_end(workers)[-1], Stopped)
        assert committed_step(experiment.run(identity.run_id(config))) >= seen[-1]
        assert store.read(experiment.run(identity.run_id(config))).state == "interrupted"
    assert not processes()


DEATHS = {
    "os._exit(7)": "ended with exit code 7",
    "os.kill(os.getpid(), signal.SIGKILL)": "was killed by SIGKILL: often the system was out of",
    "import ctypes; ctypes.string_at(0)": "was killed by SIGSEGV",
    "os.kill(os.getpid(), signal.SIGSTOP)": "stopped responding",
}


def suspended() -> bool:
    """Whether the only worker is."""
    (worker,) = processes()
    return "\nState:\tT" in Path(f"/proc/{worker}/status").read_text()


@pytest.mark.slow
def test_a_death_is_noticed_and_its_cause_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = in_trouble(tmp_path, *DEATHS)
    experiment = experiment_in(tmp_path)
    with closing(workers_in(experiment)) as workers, monkeypatch.context() as patch:
        for cause in DEATHS.values():
            workers.submit(Train(config))
            if cause == "stopped responding":
                wait_until(suspended)
                patch.setattr("bnbench.sweeps.workers.SILENCE_SECONDS", 0.5)
            end = until_end(workers)[-1]
            assert isinstance(end, Lost)
            assert end.how.startswith(cause)
            assert not end.at_start
            assert store.read(experiment.run(identity.run_id(config))).state == "interrupted"
        patch.undo()
        workers.submit(Train(config))
        assert isinstance(until_end(workers)[-1], Trained)
    assert evidence(experiment.run(identity.run_id(config))) == trained(tmp_path / "whole", config)


def test_workers_that_cannot_start_are_an_error_not_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(workers_in(experiment_in(tmp_path), 2)) as workers:
        monkeypatch.setattr("bnbench.sweeps.workers.serve", os.abort)
        for _ in range(FAILED_STARTS - 1):
            workers.submit(Train(small_config()))
            end = until_end(workers)[-1]
            assert isinstance(end, Lost)
            assert end.at_start
        workers.submit(Train(small_config()))
        with pytest.raises(RunError, match=r"^5 workers in a row died at their start"):
            until_end(workers)


DRIVER = """
import os, sys, time
from pathlib import Path
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import Stated, Train
from tests.executors import workers_in
from tests.processes import wait_until
from tests.sweeps.test_workers import long_config, processes

if __name__ == "__main__":
    workers = workers_in(ExperimentFolder(Path(sys.argv[1])))
    workers.submit(Train(long_config(100_000)))
    wait_until(lambda: any(isinstance(answer, Stated) for _, answer in workers.answers(0.1)))
    print(*processes(), flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suspended", [False, True])
def test_a_driver_that_is_killed_takes_its_workers_along(tmp_path: Path, suspended: bool) -> None:
    experiment = experiment_in(tmp_path)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = (sys.executable, tmp_path / "driver.py", experiment.path)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    with started(*command, stdout=subprocess.PIPE, env=os.environ | environment) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        if suspended:
            os.kill(worker, signal.SIGSTOP)
        driver.kill()
        driver.wait()
        wait_until(lambda: not lives(worker))
        (run,) = experiment.runs()
        # Its lock is free again, when the last of its threads has ended as well.
        wait_until(lambda: store.read(run).state == "interrupted")
