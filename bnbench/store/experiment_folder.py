"""One experiment: a folder of run folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bnbench.errors import StorageError, UsageError
from bnbench.store import files
from bnbench.store.run_folder import CONFIG, LOCK, RunFolder

EXPERIMENT = "experiment.yaml"
_RUN_NAME = re.compile(r".*_[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class ExperimentFolder:
    """The runs of one experiment, each found by the hash that its name ends with.

    The rest of a name (setup, axis values) is for people: renaming a setup loses nothing.
    """

    path: Path

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.path.name

    @property
    def file(self) -> Path:
        """Path of the experiment's own file."""
        return self.path / EXPERIMENT

    def content(self) -> bytes | None:
        """What the experiment's own file says, or None where there is none."""
        return files.read(self.file)

    def run(self, run_id: str) -> RunFolder:
        """The folder of this run: the one with the same hash, else a new one of this name."""
        exact = self.path / run_id
        with files.translated(self.path):
            if not exact.exists():
                digest = run_id.rsplit("_", 1)[-1]
                for path in sorted(self.path.glob(f"*_{digest}")):
                    return RunFolder(path)
        return RunFolder(exact)

    def runs(self) -> list[RunFolder]:
        """Every run of which there is a trace, sorted by name."""
        with files.translated(self.path):
            paths = (
                sorted(self.path.iterdir(), key=lambda path: path.name)
                if self.path.is_dir()
                else []
            )
            return [RunFolder(path) for path in paths if _is_run(path)]

    def replace_views(self, folder: str, file: str, contents: Mapping[str, bytes]) -> None:
        """Make `folder` hold these folders with this one file each, and no other such file."""
        for path in sorted((self.path / folder).rglob(file)):
            if str(path.parent.relative_to(self.path / folder)) not in contents:
                files.remove(path)
        for name, content in contents.items():
            files.make_folder(self.path / folder / name)
            files.replace_content(self.path / folder / name / file, content)

    def keep_report(self, contents: Mapping[str, bytes]) -> None:
        """Keep the files of a report next to the runs, each whole or as it was."""
        for name, content in contents.items():
            files.replace_content(self.path / name, content)

    def replace_pictures(self, folder: str, contents: Mapping[str, bytes]) -> None:
        """Make `folder` hold these SVG files and no others; other files in it stay."""
        files.make_folder(self.path / folder)
        with files.translated(self.path / folder):
            there = sorted((self.path / folder).glob("*.svg"))
        for path in there:
            if path.name not in contents:
                files.remove(path)
        self.keep_report({f"{folder}/{name}": content for name, content in contents.items()})

    def begin(self, experiment_text: str) -> None:
        """Keep the experiment's file next to its runs."""
        files.make_folder(self.path)
        if self.content() != experiment_text.encode():
            files.replace_content(self.file, experiment_text.encode())


def _is_run(path: Path) -> bool:
    traces = ((path / name).exists() for name in (CONFIG, LOCK))
    return _RUN_NAME.match(path.name) is not None and any(traces)


def experiments(runs_dir: Path) -> list[ExperimentFolder]:
    """The experiments below `runs_dir`, sorted by name."""
    with files.translated(runs_dir):
        paths = sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []
        folders = [ExperimentFolder(path) for path in paths if path.is_dir()]
        return [each for each in folders if each.runs() or (each.path / EXPERIMENT).exists()]


def choose_experiments(runs_dir: Path, name: str | None) -> list[ExperimentFolder]:
    """The experiment of this name, or all where there is none given. Raises UsageError for none."""
    if name is not None:
        return [find_experiment(runs_dir, name)]
    found = experiments(runs_dir)
    if not found:
        raise UsageError(
            f"no experiments in {runs_dir} yet", do="bnbench train default trains a first run"
        )
    return found


def find_experiment(runs_dir: Path, name: str) -> ExperimentFolder:
    """The experiment of this name, or at this path. Raises UsageError, StorageError."""
    for path in (runs_dir / name, Path(name)):
        folder = ExperimentFolder(path)
        with files.translated(path):
            if path.is_dir() and (folder.runs() or (path / EXPERIMENT).exists()):
                return folder
    known = ", ".join(folder.name for folder in experiments(runs_dir))
    if not runs_dir.exists():
        raise StorageError(
            f"{runs_dir}: no such folder",
            do="train something first, or name another folder with --runs-dir",
        )
    raise UsageError(
        f"no experiment {name!r} in {runs_dir}",
        do=f"there is: {known}" if known else "there is none yet: train something first",
    )


def find_run(runs_dir: Path, name: str) -> RunFolder:
    """The run at this path, or the one below `runs_dir` whose id is or begins with this.

    Raises UsageError where there is none or several, StorageError.
    """
    path = Path(name)
    with files.translated(path):
        if _is_run(RunFolder(path.resolve()).path):
            return RunFolder(path)
    found = [run for each in experiments(runs_dir) for run in each.runs()]
    wanted = name.rstrip("/").rpartition("/")[2]
    where = name.rstrip("/").rpartition("/")[0]
    found = [run for run in found if not where or run.path.parent.name == where]
    exact = [run for run in found if wanted in (run.name, run.name.rpartition("_")[2])]
    fitting = exact or [run for run in found if wanted and run.name.startswith(wanted)]
    if not fitting:
        raise UsageError(
            f"no run {name!r} in {runs_dir}",
            do="bnbench status EXPERIMENT lists them; a run can also be named by its folder",
        )
    if len(fitting) > 1:
        several = ", ".join(str(run.path.relative_to(runs_dir)) for run in fitting[:4])
        more = f" and {len(fitting) - 4} more" if len(fitting) > 4 else ""
        raise UsageError(
            f"{name!r} is the beginning of several runs: {several}{more}",
            do="name one of them",
        )
    return fitting[0]
