"""For all tests: one thread, since processes share the cores; no waiting for the disk."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A shell that starts us in the background lets us ignore Ctrl-C, and so would what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that spin while they wait take the core from the other process, and cost most of the time.
# Read when torch is imported, here and in what tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Nor do tests see what a shell has set: where runs and clusters are, how wide a terminal is.
SET = "BNBENCH_MEMORY_GB BNBENCH_RUNS_DIR MLFLOW_TRACKING_URI RAY_ADDRESS COLUMNS LINES"
for name in [*SET.split(), "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS"]:
    os.environ.pop(name, None)

# The same examples wherever tests run, however long they take where cores are shared.
settings.register_profile(
    "bnbench",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bnbench")

BOARD = Path(__file__).parent / "board"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes, one has the browser and the experiment that TensorBoard shows; and
    slow tests come first, since one that is left at the end has all other processes wait."""
    for item in items:
        if item.get_closest_marker("browser") or item.path.is_relative_to(BOARD):
            item.add_marker(pytest.mark.xdist_group("board"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The random numbers of a test, and of what it shares, are not what earlier tests have left:
    processes share the tests in another way each time."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(67280421310721)  # with which torch begins


def pytest_make_parametrize_id(val: object) -> str | None:
    """Texts of up to a megabyte are tried, and processes send each other the names of all tests."""
    return f"{ascii(val[:60])[1:-1]}…" if isinstance(val, str) and len(val) > 200 else None


@pytest.fixture(autouse=True, scope="session")
def _one_thread_from_the_start() -> None:
    """Also in the fixtures of a module or of the session."""
    import torch  # not before its threads know how to wait

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    """Where a test has chosen another number, the next one does not inherit it."""
    import torch

    yield
    torch.set_num_threads(1)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty, of a terminal with 80 columns. A sweep trains in this process,
    since its workers take seconds to start."""
    from tests.executors import InProcess

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("BNBENCH_RUNS_DIR", raising=False)
    monkeypatch.setattr("bnbench.sweeps.workers.Workers", InProcess)
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Of a file that is synced, no test in this process can see more than of one that is not: that
    takes a power cut. That it is asked for, tests see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
