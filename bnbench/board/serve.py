"""TensorBoard itself, on this machine alone, and the link that opens a curated view."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import socket
import time
import webbrowser
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

from bnbench import palette
from bnbench.board.bands import FILE, FOLDER, lacks_results, write_seed_bands
from bnbench.board.page import SELECTED, page
from bnbench.board.views import refresh, survey
from bnbench.errors import RunError, StorageError, UsageError
from bnbench.store import ExperimentFolder, Record, RunFolder, cell_of
from bnbench.wording import cut, slug

Say = Callable[[str], None]

HOST = "127.0.0.1"
TRIED = 100
ALL = 40  # maxNamesToEnableByDefault of TensorBoard's tf-multi-checkbox
PINNED = ("accuracy/val_running", "loss/train", "gap/val_accuracy")
RUNS = rf"^(?!(.*/)?{FOLDER}/)"
"""Runs, without the means over their seeds, which the Custom Scalars tab shows."""


def serve(
    experiments: Sequence[ExperimentFolder],
    runs_dir: Path,
    *,
    port: int,
    browser: bool,
    show: Say,
    warn: Say,
) -> None:
    """TensorBoard on one experiment, or on all of a folder, until Ctrl-C.

    `port`: or the next free one. `show` gets the link, `warn` what is not as asked.
    """
    for each in experiments:
        try:
            refresh(each)
            if lacks_results(each):  # a sweep that goes on, or was stopped, has not written them
                write_seed_bands(each)
        except StorageError as error:
            warn(f"{error.what}: TensorBoard shows the files as they are")
        for line in survey(each):
            warn(line)
    folder = experiments[0].path if len(experiments) == 1 else runs_dir
    _refuse_what_leaves(folder)
    if len(experiments) > 1:
        warn("the HParams tab compares the runs of one experiment: bnbench tensorboard NAME")
    means = sum(1 for _ in folder.rglob(FILE))
    names = sum(1 for _ in folder.rglob("*tfevents*.hparams")) + means
    if names > ALL:
        warn(
            f"{names:,} runs and means: beyond {ALL}, all tabs but Time Series and HParams begin "
            f"with the means and each cell's first seed, at most {SELECTED}; tick more at the left"
        )
    setups = setups_of(experiments)
    taken = start(folder, free_port(port), setups, warn)
    if taken != port:
        warn(f"port {port} is busy: using {taken}")
    link = deep_link(setups, port=taken, means=means > 0)
    show(f"TensorBoard on {folder}; Ctrl-C ends it\n\n  {link}\n")
    there = f"{getpass.getuser()}@{socket.gethostname()}"
    show(f"from another machine, first: ssh -L {taken}:{HOST}:{taken} {there}")
    if browser and not webbrowser.open(link):
        warn("no browser opened: copy the link")
    wait_for_interrupt()


def wait_for_interrupt() -> None:
    """Sleep until Ctrl-C, in slices: one that another thread gets does not end a single sleep."""
    while True:
        time.sleep(1.0)


def _refuse_what_leaves(folder: Path) -> None:
    """TensorBoard follows links, and waits for pipes. Raises StorageError."""
    top = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(top):
            raise StorageError(
                f"{path} is a link that leaves {folder}, and TensorBoard would follow it",
                do="remove it, or serve another folder",
            )
        # A projector's file may name any other file, to be shown.
        if path.name == "projector_config.pbtxt" or (
            "tfevents" in path.name and not path.is_file()
        ):
            raise StorageError(f"{path} is none of ours", do="remove it: TensorBoard would read it")


class Setups(NamedTuple):
    """Setups as TensorBoard tells them apart: by the names of runs.

    `places`: in the palette, in the order in which they began, which is TensorBoard's. `regex`:
    its group is the setup in the name of a run or of a mean; "" where there is none. `first`: finds
    the means and the first seed of each cell, to begin with where there are many names. `shades`:
    the colours of cells, by the names of their means.
    """

    places: Mapping[str, int]
    regex: str
    first: str
    shades: Mapping[str, str]


def setups_of(experiments: Sequence[ExperimentFolder]) -> Setups:
    """The setups that TensorBoard shows, with the colours that they have among all that began."""
    found = [(run.manifest_or_none(), run) for each in experiments for run in each.runs()]
    begun = [(slug(manifest["setup"], 32), manifest, run) for manifest, run in found if manifest]
    every = palette.places(palette.begun((setup, manifest) for setup, manifest, _ in begun))
    shown = [each for each in begun if each[2].views()]
    setups = {setup for setup, _, _ in shown}
    places = {setup: place for setup, place in every.items() if setup in setups}
    # The longest first: "bn" is the beginning of "bn-before".
    either = "|".join(map(re.escape, sorted(places, key=lambda name: (-len(name), name))))
    regex = f"(?:^|/)({either})(?:_|$)" if places else ""
    cells: dict[str, dict[str, None]] = {setup: {} for setup in places}
    for setup, manifest, _ in shown:
        cells[setup][manifest["cell"].rpartition("_")[0]] = None
    shades: dict[str, str] = {}
    for setup, names in cells.items():
        shades |= zip(sorted(names), palette.shades(places[setup], len(names)), strict=True)
    first = _first((manifest, run) for _, manifest, run in shown)
    return Setups(places, regex, first, shades)


def _first(runs: Iterable[tuple[Record, RunFolder]]) -> str:
    """A regular expression for the names of all means, and of the run with the smallest seed of
    each cell of an experiment: seeds need not begin at 0. Of `SELECTED` cells: no more are seen."""
    found: dict[tuple[Path, str], RunFolder] = {}
    for manifest, run in sorted(runs, key=lambda each: each[0]["seed"]):
        found.setdefault((run.path.parent, cell_of(manifest)), run)
    # Of several experiments, names begin with that of the experiment.
    names = sorted(
        f"(?:{re.escape(run.path.parent.name)}/)?{re.escape(run.name)}" for run in found.values()
    )
    return f"(?:^|/){FOLDER}/|^(?:{'|'.join(names[:SELECTED])})$"


def deep_link(setups: Setups, *, port: int, means: bool) -> str:
    """Opens the curves of each setup, unsmoothed: in Custom Scalars, or, where there are no means
    over seeds yet, in Time Series; there with pinned cards, and a colour for each setup."""
    cards = [{"plugin": "scalars", "tag": tag} for tag in PINNED]
    query = {
        "pinnedCards": json.dumps(cards, separators=(",", ":")),
        "smoothing": "0",
        "runFilter": RUNS,
    }
    if setups.regex:
        query["runColorGroup"] = f"regex:{setups.regex}"
    # What is after # is the tab, and what the older ones read.
    tab = "custom_scalars" if means else "timeseries"
    return f"http://{HOST}:{port}/?{urlencode(query, quote_via=quote)}#{tab}&_smoothingWeight=0"


def free_port(wanted: int) -> int:
    """The first port from `wanted` on that nothing listens on. Raises UsageError."""
    for port in range(wanted, min(wanted + TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
            # As the server will: a port whose last connections are only closing is free.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            return port
    raise UsageError(
        f"no free port from {wanted} on", do="name another one with --port, above 1023"
    )


def start(folder: Path, port: int, setups: Setups, warn: Say) -> int:
    """Start TensorBoard on `folder` in this process, and return the port on which it listens.

    It ends with the process, its data server too. Raises RunError.
    """
    from tensorboard import assets, program  # slow to import

    said = io.StringIO()
    try:
        # Its output is shown only where it fails: it announces its fast loader as experimental
        # each time.
        with redirect_stderr(said):
            theirs = assets.get_default_assets_zip_provider()
            ours, failed = page(*setups, theirs) if theirs and setups.regex else (None, [])
            board = program.TensorBoard(assets_zip_provider=(lambda: ours) if ours else theirs)
            board.configure(
                argv=["tensorboard", "--logdir", str(folder), "--host", HOST, "--port", str(port)]
            )
            board.launch()
    except program.TensorBoardPortInUseError:  # another server was faster
        return start(folder, free_port(port + 1), setups, warn)
    except (Exception, SystemExit) as error:
        told = said.getvalue().splitlines() if isinstance(error, SystemExit) else []
        raise RunError(f"TensorBoard did not start: {told[-1] if told else error}") from error
    if failed:
        warn(f"this version of TensorBoard has another page: not as described are {cut(failed)}")
    return port
