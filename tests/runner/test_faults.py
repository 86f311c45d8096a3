"""A disk that fails, files that are damaged, places that cannot be: sentences, and nothing lost."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from bnbench.config import run_id, schema
from bnbench.errors import StorageError
from bnbench.events import Event
from bnbench.runner import Settings, execute
from bnbench.store import Appender, ExperimentFolder, RunFolder
from tests.runs import evidence, experiment_in, run_state, small_config

CONFIG = small_config(
    train=schema.TrainConfig(
        steps=9, evaluations=2, evaluation_images=16, log_every=1, checkpoint_every=3
    )
)
"""Three commits, with events behind each."""


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


class KillAt:
    """A view at which the process dies once it has seen a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def take(self, events: list[Event]) -> None:
        """Look at the step."""
        if events[0].step >= self._step:
            raise Killed

    def close(self) -> None:
        """Nothing is held."""


def folder_of(experiment: ExperimentFolder) -> RunFolder:
    return experiment.run(run_id(CONFIG))


def trained(experiment: ExperimentFolder, *, restart: bool = False) -> dict[str, Any]:
    """Go on to the result, and what is there then."""
    return evidence(execute(CONFIG, experiment, Settings(restart=restart)).folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run leaves behind when nothing fails."""
    return trained(experiment_in(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose run was killed after its second commit, with events behind it."""
    path = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        execute(CONFIG, experiment_in(path), Settings(view=lambda *_: KillAt(8)))
    return path


@pytest.fixture
def interrupted(killed: Path, tmp_path: Path) -> ExperimentFolder:
    """A copy of that experiment, to be damaged."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    return experiment_in(tmp_path)


# --- every file operation fails -----------------------------------------------------------


class FaultyFile:
    """An open file of which some operations fail; a write that fails has been made half-way."""

    def __init__(self, file: IO[bytes], path: Path, disk: Disk) -> None:
        self._file, self._path, self._disk = file, path, disk

    def write(self, content: bytes) -> int:
        """Write, or half of it and fail."""
        try:
            self._disk.count("write", self._path)
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return self._file.write(content)

    def truncate(self, *size: int) -> int:
        """Truncate, or fail."""
        self._disk.count("truncate", self._path)
        return self._file.truncate(*size)

    def __enter__(self) -> FaultyFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass
class Disk:
    """Counts operations below a folder; the `number`-th fails and, with `lasting`, all after it."""

    below: Path
    number: int
    error: int
    lasting: bool
    seen: list[str] = field(default_factory=list)

    def count(self, name: str, path: Path) -> None:
        """One operation more, which may fail."""
        if not path.is_relative_to(self.below):
            return
        self.seen.append(f"{name} {path.name.split('.out.')[0]}")
        at = len(self.seen)
        if at == self.number or (self.lasting and at > self.number > 0):
            raise OSError(self.error, os.strerror(self.error), str(path))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Disk]:
    """Puts a disk that fails below everything that `store` does."""

    def install(below: Path, number: int = 0, error: int = 0, *, lasting: bool = False) -> Disk:
        disk = Disk(below, number, error, lasting)

        def counted(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
            def act(path: Path, *a: Any, **k: Any) -> Any:
                disk.count(name, path)
                return operation(path, *a, **k)

            return act

        for name in ("replace", "unlink", "mkdir", "read_bytes"):
            monkeypatch.setattr(Path, name, counted(name, getattr(Path, name)))
        open_file, sync, open_descriptor = Path.open, os.fsync, os.open

        def opened(path: Path, mode: str = "r", *a: Any, **k: Any) -> Any:
            if not set(mode) & set("wa+") or not path.is_relative_to(below):
                return open_file(path, mode, *a, **k)
            disk.count("open", path)
            return FaultyFile(open_file(path, mode, *a, **k), path, disk)

        def synced(descriptor: int) -> None:
            disk.count("fsync", below / "fsync")
            sync(descriptor)

        def descriptor_of(path: Any, *a: Any, **k: Any) -> int:
            disk.count("os.open", Path(os.fsdecode(path)))
            return open_descriptor(path, *a, **k)

        monkeypatch.setattr(Path, "open", opened)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "open", descriptor_of)
        return disk

    return install


HARMLESS = (
    "write lock",
    "truncate lock",
    "open lock",
    "unlink checkpoint.prev.pt",
    "unlink events",
    "read_bytes manifest.json",
)
"""Who holds a run, space that a finished one takes up, and what a view in TensorBoard says of other
runs: no reason to fail."""


def require_sentence(error: StorageError, below: Path) -> None:
    said = str(error)
    assert error.exit_code == 4
    assert len(said.splitlines()) <= 3, said
    assert str(below) in said
    assert "Error" not in said.replace("Input/output error", ""), said


def fail_and_go_on(
    experiment: ExperimentFolder, disk: Callable[..., Disk], undo: Callable[[], None], **how: Any
) -> tuple[str | None, list[str]]:
    """Train on a disk that fails, then on one that does not; the operation that failed."""
    announced: list[str] = []
    faulty = disk(experiment.path.parent, **how)
    try:
        execute(CONFIG, experiment, Settings(announce=announced.append))
        raised = False
    except StorageError as error:
        raised = True
        require_sentence(error, experiment.path.parent)
    undo()
    if len(faulty.seen) < how["number"]:
        return None, announced
    operation = faulty.seen[how["number"] - 1]
    view = [line for line in announced if "a view of the run failed and is left out" in line]
    assert raised or view or operation in HARMLESS, f"{operation} failed and nobody said so"
    folder = folder_of(experiment)
    # What was committed stays readable.
    assert folder.state() in ("new", "interrupted", "failed", "completed")
    list(folder.records())
    folder.checkpoint()
    return operation, announced


LASTING = {errno.ENOSPC: True, errno.EROFS: True, errno.EACCES: True, errno.EIO: False}


def require_every_operation(
    start: Callable[[Path], ExperimentFolder],
    tmp_path: Path,
    disk: Callable[..., Disk],
    monkeypatch: pytest.MonkeyPatch,
    errors: Callable[[int], tuple[int, ...]],
    expected: dict[str, Any],
) -> set[str]:
    """Fail each operation in turn, until there is none left; the operations."""
    failed: set[str] = set()
    for number in range(1, 1_000):
        for error in errors(number):
            experiment = start(tmp_path / f"{number}-{error}")
            operation, _ = fail_and_go_on(
                experiment,
                disk,
                monkeypatch.undo,
                number=number,
                error=error,
                lasting=LASTING[error],
            )
            if operation is None:
                return failed
            failed.add(operation)
            assert trained(experiment) == expected, f"operation {number}: {operation}"
            shutil.rmtree(experiment.path.parent)
    raise AssertionError("a run has no thousand operations")


TOUCHED = {"write metrics.jsonl", "write checkpoint.pt.tmp", "replace checkpoint.pt", "fsync fsync"}
TOUCHED |= {"replace checkpoint.pt.tmp", "replace result.json.tmp", "os.open lock"}


@pytest.mark.slow
def test_every_file_operation_of_a_run_fails(
    tmp_path: Path,
    undisturbed: dict[str, Any],
    disk: Callable[..., Disk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = tuple(LASTING)
    failed = require_every_operation(
        experiment_in,
        tmp_path,
        disk,
        monkeypatch,
        # A third of them here, the others below.
        lambda number: (kinds[number % len(kinds)],) if number % 3 == 0 else (),
        undisturbed,
    )
    assert len(failed) > 10


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("again", [False, True])
def test_every_file_operation_fails_in_every_way(
    tmp_path: Path,
    killed: Path,
    undisturbed: dict[str, Any],
    disk: Callable[..., Disk],
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    again: bool,
) -> None:
    def start(path: Path) -> ExperimentFolder:
        if again:
            shutil.copytree(killed, path)
        return experiment_in(path)

    failed = require_every_operation(
        start, tmp_path, disk, monkeypatch, lambda _: (error,), undisturbed
    )
    assert failed >= TOUCHED


# --- views that fail ----------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 3, 6, 9])
def test_a_failing_tensorboard_never_stops_training(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls: list[None] = []
    append = Appender.append

    def broken(file: Appender, content: bytes) -> None:
        if "tfevents" in file.path.name:
            calls.append(None)
            if len(calls) >= call:
                raise OSError(errno.ENOSPC, "No space left on device")
        append(file, content)

    monkeypatch.setattr(Appender, "append", broken)
    announced: list[str] = []
    result = execute(CONFIG, experiment_in(tmp_path), Settings(announce=announced.append))
    assert evidence(result.folder) == undisturbed
    assert [line for line in announced if "a view of the run failed" in line] == announced
    assert len(announced) == 1


# --- damaged checkpoints ------------------------------------------------------------------


def go_on_from_the_one_before(experiment: ExperimentFolder) -> dict[str, Any]:
    """Train to the end; the damage must have been said."""
    announced: list[str] = []
    result = execute(CONFIG, experiment, Settings(announce=announced.append))
    path = result.folder.path / "checkpoint.pt"
    assert f"warning: {path} is damaged: using checkpoint.prev.pt" in announced
    return evidence(result.folder)


@pytest.mark.parametrize("kept", [0, 1, 2_000, -100, -60, -1])
def test_a_truncated_checkpoint_costs_some_steps(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any], kept: int
) -> None:
    path = folder_of(interrupted).path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:kept])
    assert go_on_from_the_one_before(interrupted) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_cost_some_steps(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any], seed: int
) -> None:
    flip(folder_of(interrupted).path / "checkpoint.pt", random.Random(seed))
    assert go_on_from_the_one_before(interrupted) == undisturbed


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.slow
def test_many_flipped_bits_cost_some_steps(
    killed: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    for seed in range(100, 160):
        shutil.copytree(killed, tmp_path / str(seed))
        experiment = experiment_in(tmp_path / str(seed))
        flip(folder_of(experiment).path / "checkpoint.pt", random.Random(seed))
        assert go_on_from_the_one_before(experiment) == undisturbed


def test_two_damaged_checkpoints_are_said_and_restart_mends_it(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    folder = folder_of(interrupted)
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        flip(folder.path / name, random.Random(name))
    with pytest.raises(StorageError) as refused:
        execute(CONFIG, interrupted, Settings())
    assert str(refused.value) == (
        f"{folder.path}: checkpoint.pt and checkpoint.prev.pt damaged, no whole checkpoint left\n"
        "  train the run from its beginning with --restart"
    )
    assert trained(interrupted, restart=True) == undisturbed


# --- damaged events -----------------------------------------------------------------------


def tear(experiment: ExperimentFolder, undisturbed: dict[str, Any], stride: int) -> None:
    """Cut the events at the bytes of their last two lines, and go on each time."""
    folder = folder_of(experiment)
    whole = (folder.path / "metrics.jsonl").read_bytes()
    first = whole[:-1].rindex(b"\n", 0, whole[:-1].rindex(b"\n")) + 1
    assert first >= run_state(folder)["metrics_bytes"], "two lines lie behind the commit"
    spare = experiment.path.with_name("spare")
    shutil.copytree(experiment.path, spare)
    for size in (*range(first, len(whole), stride), len(whole) - 1):
        shutil.rmtree(experiment.path)
        shutil.copytree(spare, experiment.path)
        (folder.path / "metrics.jsonl").write_bytes(whole[:size])
        assert trained(experiment) == undisturbed, f"{size} bytes left"


def test_torn_events_behind_the_commit_do_not_matter(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    tear(interrupted, undisturbed, 41)


@pytest.mark.slow
def test_events_torn_at_every_byte_of_the_last_two_lines(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    tear(interrupted, undisturbed, 1)


# --- files damaged by hand ----------------------------------------------------------------

DAMAGES = {
    "empty": b"",
    "truncated": None,
    "a list": b"[]\n",
    "a number": b"7\n",
    "binary": bytes(range(256)),
    "too deep": b"[" * 100_000,
}
MENDED = ("result.json", "manifest.json", "config.yaml", "metrics.jsonl")


def damaged(path: Path, damage: str) -> None:
    content = DAMAGES[damage]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", MENDED)
def test_a_file_damaged_by_hand_is_named_and_restart_mends_it(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any], name: str, damage: str
) -> None:
    folder = folder_of(interrupted)
    if name == "result.json":
        (folder.path / name).write_text('{"state": "completed", "steps": 6}\n')
    damaged(folder.path / name, damage)
    with pytest.raises(StorageError) as refused:
        execute(CONFIG, interrupted, Settings())
    assert str(folder.path / name) in str(refused.value)
    assert "--restart" in str(refused.value)
    if damage == "binary":
        assert trained(interrupted, restart=True) == undisturbed


def test_a_result_without_a_state_is_no_result(interrupted: ExperimentFolder) -> None:
    folder = folder_of(interrupted)
    (folder.path / "result.json").write_text('{"state": "finished"}')
    with pytest.raises(StorageError, match=r"result\.json: not a result"):
        folder.state()


def test_a_removed_result_is_made_again_from_the_checkpoint(
    interrupted: ExperimentFolder, undisturbed: dict[str, Any]
) -> None:
    assert trained(interrupted) == undisturbed
    folder = folder_of(interrupted)
    (folder.path / "result.json").unlink()
    (folder.path / "manifest.json").unlink()
    assert trained(interrupted) == undisturbed


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_error_hinders_nobody(interrupted: ExperimentFolder, damage: str) -> None:
    folder = folder_of(interrupted)
    folder.fail({"message": "broken"})
    damaged(folder.path / "error.json", damage)
    assert folder.state() == "failed"
    with pytest.raises(StorageError, match=r"error\.json: not .*\n  remove the file, or"):
        folder.error()
    with folder.hold():
        folder.begin(config_text="", manifest={})
    assert folder.error() is None


# --- places -------------------------------------------------------------------------------


def refused_at(path: Path) -> str:
    with pytest.raises(StorageError) as refused:
        execute(CONFIG, ExperimentFolder(path), Settings())
    require_sentence(refused.value, path.parent)
    return str(refused.value)


def test_places_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "else")
    assert "--runs-dir" in refused_at(tmp_path / "file")
    assert "--runs-dir" in refused_at(tmp_path / "file" / "inside")
    assert "--runs-dir" in refused_at(tmp_path / "loop")
    assert "--runs-dir" in refused_at(tmp_path / ("x" * 300))
    name = run_id(CONFIG)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text("")
    assert name in refused_at(tmp_path / "a")
    (tmp_path / "b" / name / "lock").mkdir(parents=True)
    assert "lock" in refused_at(tmp_path / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "not writable" in refused_at(tmp_path / "closed" / "small")


def test_names_at_their_limits_are_trained(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    for setup in ("x" * 100, "ÄÖ Größe 🙂", "..", "שלום", "a/b\\c"):
        config = CONFIG.model_copy(update={"setup": setup})
        assert len(run_id(config)) <= 64
        result = execute(config, ExperimentFolder(tmp_path / ("n" * 64)), Settings(restart=True))
        assert result.folder.path.parent == tmp_path / ("n" * 64)
        assert evidence(result.folder) == undisturbed


# --- simultaneous starts ------------------------------------------------------------------

START = """\
import sys, time
from pathlib import Path
from bnbench.errors import HeldError
from bnbench.runner import Settings, execute
from tests.runner.test_faults import CONFIG, LingerUntil
from tests.runs import experiment_in

path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
begun = time.monotonic()
try:
    execute(CONFIG, experiment_in(path), Settings(view=lambda *_: LingerUntil(path / "over")))
    print("trained")
except HeldError as error:
    print(f"held {time.monotonic() - begun:.2f} s, exit {error.exit_code}: {error}")
"""


class LingerUntil:
    """A view that keeps its run from ending until a file is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, events: list[Event]) -> None:
        """Wait."""
        assert events
        while not self._path.exists():
            time.sleep(0.05)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 8, 32])
def test_of_simultaneous_starts_exactly_one_trains(
    tmp_path: Path, undisturbed: dict[str, Any], number: int
) -> None:
    command = [sys.executable, "-c", START, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with ExitStack() as running:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
            )
            processes.append(running.enter_context(process))
            running.callback(process.kill)
        for process in processes:  # the import of torch is over
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        waiting = list(processes)
        while len(waiting) > 1:
            waiting = [process for process in waiting if process.poll() is None]
            time.sleep(0.05)
        (tmp_path / "over").touch()
        said = {process.pid: process.communicate()[0] for process in processes}
    (holder,) = (pid for pid, text in said.items() if text == "trained\n")
    held = [text for pid, text in said.items() if pid != holder]
    for text in held:
        assert f", exit 3: {folder_of(experiment_in(tmp_path)).path} is held by" in text
        assert f"(id {holder})" in text
        assert float(text.split()[1]) < 2, text  # of its own 0.5 s of waiting
    folder = folder_of(experiment_in(tmp_path))
    assert (folder.manifest() or {})["attempts"] == 1
    assert evidence(folder) == undisturbed
