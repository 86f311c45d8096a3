"""One experiment: a folder of run folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from bnbench.errors import StorageError, UsageError
from bnbench.store import files
from bnbench.store.run_folder import CONFIG, LOCK, MANIFEST, RunFolder
from bnbench.wording import cut, nearest, printable

EXPERIMENT = "experiment.yaml"
STUDY = "study-"
_RUN_NAME = re.compile(r".*_[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class ExperimentFolder:
    """The runs of one experiment, each found by the hash that its name ends with.

    The rest of a name (setup, axis values) is for people: renaming a setup loses nothing. `study`:
    which of several studies of these runs is meant; each has its own file and report. `siblings`:
    folders of other experiments, from which an identical finished run is taken over.
    """

    path: Path
    study: int = 1
    siblings: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.path.name

    def absolute(self) -> ExperimentFolder:
        """The same for a process with another working directory."""
        siblings = tuple(each.absolute() for each in self.siblings)
        return replace(self, path=self.path.absolute(), siblings=siblings)

    @property
    def prefix(self) -> str:
        """What the study's own files begin with, below the folder."""
        return "" if self.study == 1 else f"{STUDY}{self.study}/"

    @property
    def file(self) -> Path:
        """Path of the experiment's own file."""
        return self.path / f"{self.prefix}{EXPERIMENT}"

    def studies(self) -> list[ExperimentFolder]:
        """Those that have a file, in the order in which they came."""
        with files.translated(self.path):
            ends = [
                path.parent.name[len(STUDY) :] for path in self.path.glob(f"{STUDY}*/{EXPERIMENT}")
            ]
        numbers = [1, *sorted(int(end) for end in ends if end.isdecimal() and int(end) > 1)]
        found = [ExperimentFolder(self.path, number) for number in numbers]
        return [each for each in found if each.file.exists()]

    def content(self) -> bytes | None:
        """What the experiment's own file says, or None where there is none."""
        return files.read(self.file)

    def run(self, run_id: str) -> RunFolder:
        """The folder of this run: the one with the same hash, else a new one of this name."""
        return next(self.folders_of([run_id]))

    def folders_of(self, run_ids: Iterable[str]) -> Iterator[RunFolder]:
        """`run` for each of these, with one look at what there is."""
        names = [path.name for path in reversed(self._paths())]
        there = {name.rpartition("_")[2]: name for name in names} | {name: name for name in names}
        for run_id in run_ids:
            name = there.get(run_id) or there.get(run_id.rpartition("_")[2], run_id)
            yield RunFolder(self.path / name)

    def runs(self) -> list[RunFolder]:
        """Every run of which there is a trace, sorted by name."""
        paths = self._paths()
        with files.translated(self.path):
            return [RunFolder(path) for path in paths if _is_run(path)]

    def _paths(self) -> list[Path]:
        """All that is in the folder, sorted by name."""
        files.refuse_link(self.path)
        with files.translated(self.path):
            paths = self.path.iterdir() if self.path.is_dir() else ()
            return sorted(paths, key=attrgetter("name"))

    def exists(self) -> bool:
        """Whether it is the folder of an experiment."""
        with files.translated(self.path):
            return self.path.is_dir() and (self.file.exists() or bool(self.runs()))

    def keep(self, contents: Mapping[str, bytes], *, synced: bool = True) -> None:
        """Keep files by their path below the folder, each whole or as it was."""
        for name, content in contents.items():
            files.make_folder((self.path / name).parent, inside=self.path)
            files.replace_content(self.path / name, content, synced=synced)

    def settled(self, name: str, content: bytes) -> bytes:
        """What a file says below the folder that whoever comes first has written."""
        files.make_folder((self.path / name).parent, inside=self.path)
        files.write_first(self.path / name, content)
        return files.read(self.path / name) or b""

    def kept(self, pattern: str) -> dict[str, bytes]:
        """Files that match a pattern, by their path below the folder."""
        with files.translated(self.path):
            paths = sorted(self.path.glob(pattern))
        found = {str(path.relative_to(self.path)): files.read(path) for path in paths}
        return {name: content for name, content in found.items() if content is not None}

    def replace(
        self, folder: str, pattern: str, contents: Mapping[str, bytes], *, synced: bool = True
    ) -> None:
        """Make `folder` hold these files, and no others of those that match a pattern."""
        files.make_folder(self.path / folder, inside=self.path)
        files.remove_all(self.path / folder, pattern, but=contents)
        named = {f"{folder}/{name}": content for name, content in contents.items()}
        self.keep(named, synced=synced)

    def set_aside(self) -> str:
        """Rename the experiment's own file, which cannot be read; its new name."""
        name = self.file.name + files.ending_aside(self.file.parent)
        files.rename(self.file, self.file.with_name(name))
        return name

    def begin(self, experiment_text: str) -> None:
        """Keep the experiment's file next to its runs."""
        files.make_folder(self.path, inside=self.path)
        files.remove_leftovers(self.path)
        if self.content() != experiment_text.encode():
            self.keep({f"{self.prefix}{EXPERIMENT}": experiment_text.encode()})


def _is_run(path: Path) -> bool:
    """Also one that somebody has renamed: it has begun, and is shown with what is wrong with it."""
    if _RUN_NAME.match(path.name) is None:
        return all((path / name).exists() for name in (CONFIG, MANIFEST))
    return any((path / name).exists() for name in (CONFIG, LOCK))


def experiments(runs_dir: Path) -> list[ExperimentFolder]:
    """The experiments below `runs_dir`, sorted by name; what is a link is none."""
    with files.translated(runs_dir):
        paths = sorted(runs_dir.iterdir()) if runs_dir.exists() else []
        folders = [ExperimentFolder(path) for path in paths if not path.is_symlink()]
    return [folder for folder in folders if folder.exists()]


def choose_experiments(
    runs_dir: Path, name: str | None, called: str | None = None
) -> list[ExperimentFolder]:
    """The experiment that `find_experiment` finds, or all without a name. Raises UsageError for
    none."""
    if name is not None:
        return [find_experiment(runs_dir, name, called)]
    found = experiments(runs_dir)
    if not found:
        raise UsageError(
            f"no experiments in {printable(str(runs_dir))} yet",
            do="bnbench train default trains a first run",
        )
    return found


def find_experiment(runs_dir: Path, name: str, called: str | None = None) -> ExperimentFolder:
    """The experiment of this name, or at this path; `called`: what that of the name's file is.
    Raises UsageError, StorageError."""
    for path in (runs_dir / name, Path(name), *([runs_dir / called] if called else [])):
        if (folder := ExperimentFolder(path)).exists():
            return folder
    known = [folder.name for folder in experiments(runs_dir)]
    do = f"there is: {cut(known)}" if known else "there is none yet: train something first"
    if called:
        do = f"bnbench sweep {printable(name)} trains it first"
    elif meant := nearest(name, known):
        do = f"did you mean {meant}?"
    if not runs_dir.exists():
        named = "train something first, or name another folder with --runs-dir"
        do = do if called else named
        raise StorageError(f"{printable(str(runs_dir))}: no such folder", do=do)
    raise UsageError(f"no experiment {name!r} in {printable(str(runs_dir))}", do=do)


def find_run(runs_dir: Path, name: str) -> RunFolder:
    """The run at this path, or the one below `runs_dir` whose id is or begins with this.

    Raises UsageError where there is none or several, StorageError.
    """
    with files.translated(Path(name)):
        if _is_run(Path(name).resolve()):
            return RunFolder(Path(name))
    where, _, wanted = name.rstrip("/").rpartition("/")
    found = [run for each in experiments(runs_dir) for run in each.runs()]
    found = [run for run in found if not where or run.path.parent.name == where]
    exact = [run for run in found if wanted in (run.name, run.name.rpartition("_")[2])]
    fitting = exact or [run for run in found if wanted and run.name.startswith(wanted)]
    if not fitting:
        raise UsageError(
            f"no run {name!r} in {printable(str(runs_dir))}",
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
