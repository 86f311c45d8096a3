"""Whatever happens to a file of a run, it costs this run and no other, and is said."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from bnbench import store
from bnbench.config import loading, plans
from bnbench.errors import Interrupted
from bnbench.report import reading
from bnbench.report.looks import judged
from bnbench.report.record import as_record
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings, Stop
from bnbench.store import ExperimentFolder
from tests.commands import Said, bnbench
from tests.executors import InProcess
from tests.injection import stopping
from tests.runs import SMALL_YAML, evidence
from tests.stub import build_stub

EXIT_CODES = {0, 1, 2, 3, 4}
"""Those of README.md, but for signals."""

FILES = ("result.json", "manifest.json", "metrics.jsonl", "config.yaml", "error.json")
OTHERS = ("checkpoint.pt", "first_batch.png", "picture_x.png", "lock", "events")
RETYPED: list[Any] = [None, True, -1, 1e300, 2**70, "", "x", [], [1], {}, {"a": 1}]

Damage = Callable[[Path, random.Random], None]


def change(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def double(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    begin = rng.choice([0, rng.randrange(len(content))])
    path.write_bytes(content + content[begin:])


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def make_a_folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def retype(path: Path, rng: random.Random) -> None:
    """A value at any place in one of its JSON objects becomes another one."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    place = rng.randrange(len(lines))
    record = json.loads(lines[place])
    inside: Any = record
    while True:
        key = rng.choice(sorted(inside) if isinstance(inside, dict) else range(len(inside)))
        if not isinstance(inside[key], dict | list) or not inside[key] or rng.random() < 0.3:
            break
        inside = inside[key]
    inside[key] = rng.choice(RETYPED)
    lines[place] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")


DAMAGES: tuple[Damage, ...] = (change, cut, double, empty, delete, make_a_folder)


def command(folder: Path, *arguments: str) -> Said:
    """Run a command on the runs in a folder, with stubs to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnbench.sweeps.workers.Workers", InProcess)
        patch.setattr(execute, "__defaults__", (build_stub,))
        patch.setenv("BNBENCH_RUNS_DIR", str(folder / "runs"))
        said = bnbench(*arguments)
    assert said.code in EXIT_CODES, said
    for word in ("Traceback", "unexpected"):
        assert word not in said.out + said.err, said
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, one that was interrupted, and one that has failed."""
    path = tmp_path_factory.mktemp("whole")
    experiment = ExperimentFolder(path / "runs" / "study")
    (path / "study.yaml").write_text(f"{SMALL_YAML}seeds: 4\n")
    experiment.begin((path / "study.yaml").read_text())
    for config in plans.expand(loading.load_experiment(path / "study.yaml")).runs:
        stop = Stop()
        build = build_stub if config.seed < 2 else stopping(build_stub, 10, stop)
        with suppress(Interrupted):
            execute(config, experiment, Settings(stop=stop), build)
    for run in experiment.runs():
        shutil.copy(run.path / "first_batch.png", run.path / "picture_x.png")
    experiment.runs()[3].fail({"error": "E", "message": "why", "traceback": "where"})
    assert states(experiment) == ["completed", "completed", "interrupted", "failed"]
    return path


def states(experiment: ExperimentFolder) -> list[str]:
    return [store.read(run).state for run in experiment.runs()]


@contextmanager
def copied(whole: Path, *, sealed: bool = True) -> Iterator[tuple[Path, ExperimentFolder]]:
    """A copy to be damaged; without a seal, as earlier versions left it."""
    with TemporaryDirectory() as name:
        path = Path(name) / "copy"
        shutil.copytree(whole, path)
        experiment = ExperimentFolder(path / "runs" / "study")
        for run in experiment.runs()[:2] if not sealed else ():
            result = json.loads((run.path / "result.json").read_text())
            del result["seal"]
            (run.path / "result.json").write_text(json.dumps(result))
        yield path, experiment


def rows(path: Path, experiment: ExperimentFolder, damaged: int) -> list[Any]:
    """What `status`, `report` and `compare` say of the other runs."""
    names = [run.name for number, run in enumerate(experiment.runs()) if number != damaged]
    listed = json.loads(command(path, "status", "study", "--json").out)["runs"]
    for each in listed:
        each.pop("path", None)
    study = reading.read_study(experiment)
    reported = as_record(study, judged(study), [], written=datetime.now(UTC))
    compared = json.loads(command(path, "compare", names[0], names[-1], "--json").out)
    return [
        [each for each in listed if each["run"] in names],
        [each for each in reported["runs"] if each["run"] in names],
        compared["metrics"],
    ]


def everywhere(whole: Path, number: int, do: Callable[[Path], None], *, sealed: bool) -> None:
    """Damage a run, and see what every command makes of it and of the others."""
    with copied(whole, sealed=sealed) as (path, experiment):
        run = experiment.runs()[number]
        before, was = rows(path, experiment, number), store.read(run)
        events = list(run.records())
        do(run.path)
        assert rows(path, experiment, number) == before
        found = store.read(run)
        if sealed and found.result is not None:
            assert (found.result, found.manifest) == (was.result, was.manifest)
            assert list(run.records()) == events
        command(path, "status", "study")
        command(path, "compare", *(each.name for each in experiment.runs()))
        command(path, "tensorboard", "--rebuild", "study")
        command(path, "sweep", str(path / "study.yaml"), "--dry-run")
        said = command(path, "sweep", str(path / "study.yaml"), "--quiet", "--json")
        rest = [row for row in json.loads(said.out) if row["run"] != run.name]
        assert [row["state"] for row in rest].count("completed") == (3 - (number != 3))
        command(path, "train", str(path / "study.yaml"), "--set", f"seeds=[{number}]", "--quiet")
        assert rows(path, experiment, number)[0][0] == before[0][0]


def in_any_way(whole: Path, seed: int) -> None:
    rng = random.Random(seed)
    damage, sealed = rng.choice([*DAMAGES, retype, retype, retype]), rng.random() < 0.5
    name = rng.choice(FILES + OTHERS if damage is not retype else FILES[:3])

    def do(folder: Path) -> None:
        for path in sorted(folder.glob(f"{name}*")):
            damage(path, rng)

    everywhere(whole, rng.choice([0, 2, 3]), do, sealed=sealed)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_costs_one_run(whole: Path, seed: int) -> None:
    in_any_way(whole, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 115))
def test_any_damaged_file_costs_one_run(whole: Path, seed: int) -> None:
    in_any_way(whole, seed)


@pytest.mark.parametrize("name", FILES[:4])
def test_a_damaged_run_is_trained_again_and_its_files_are_kept(whole: Path, name: str) -> None:
    with copied(whole) as (path, experiment):
        run = experiment.runs()[0]
        undamaged = evidence(run)
        (run.path / name).write_bytes(b"{")
        assert states(experiment)[:2] == ["damaged", "completed"]
        said = command(path, "sweep", str(path / "study.yaml"), "--quiet")
        assert (said.code, (run.path / name).read_bytes()) == (1, b"{")
        assert f"{run.name}: damaged: " in said.err
        assert "FILE.damaged-1" in said.err
        again = ("sweep", str(path / "study.yaml"), "--quiet", "--retry-failed")
        assert command(path, *again).code == 0
        assert (run.path / f"{name}.damaged-1").read_bytes() == b"{"
        assert evidence(run) == undamaged
        assert (run.path / "metrics.jsonl.damaged-1").exists() == (name != "result.json")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_a_damaged_run_without_a_seal_is_trained_again(whole: Path, name: str) -> None:
    with copied(whole, sealed=False) as (path, experiment):
        run = experiment.runs()[0]
        undamaged, content = evidence(run), (run.path / name).read_bytes()
        (run.path / name).write_bytes(content[:300])
        sweep = ("sweep", str(path / "study.yaml"), "--quiet")
        for said in (command(path, *sweep), command(path, *sweep)):
            assert said.code == 1
            assert f"{run.name}: damaged: " in said.err
            assert "FILE.damaged-1" in said.err
            assert (run.path / name).read_bytes() == content[:300]
        assert "1 damaged" in command(path, *sweep, "--dry-run").out
        assert command(path, *sweep, "--retry-failed").code == 0
        assert (run.path / f"{name}.damaged-1").read_bytes() == content[:300]
        assert evidence(run) == undamaged


def test_what_a_later_version_has_added_is_ignored(whole: Path) -> None:
    with copied(whole, sealed=False) as (path, experiment):
        before, run = rows(path, experiment, 3), experiment.runs()[0]
        for name in ("result.json", "manifest.json"):
            record = json.loads((run.path / name).read_text())
            (run.path / name).write_text(json.dumps(record | {"later": 1, "more": {"a": [None]}}))
        events = (run.path / "metrics.jsonl").read_text().splitlines()
        later = ['{"event": "later", "what": 1}', events[0][:-1] + ', "later": null}']
        (run.path / "metrics.jsonl").write_text("\n".join([*later, *events[1:], ""]))
        assert rows(path, experiment, 3) == before
        assert command(path, "tensorboard", "--rebuild", "study").code == 0
