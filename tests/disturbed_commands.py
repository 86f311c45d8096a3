"""Commands that write: what stands in their folder before, and what must be there afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnbench import store
from tests.runs import evidence, write_experiment

SETUPS = "setups: {none: {norm: {kind: none}}, bn: {}}\n"

IMAGES = """\
data:
  dataset: image-folder
  root: images
  image_size: 8
  validation_size: 4
  batch_size: 4
  eval_batch_size: 8
model: {widths: [4], blocks: 1}
train: {steps: 2, evaluations: 1, checkpoint_every: 1}
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, what stands in its folder before, and what must be there afterwards."""

    name: str
    arguments: tuple[str, ...]
    before: Callable[[Path], None]
    evidence: Callable[[Path], Any]


def _runs(place: Path) -> dict[str, Any]:
    """Results, events and weights of all runs."""
    return {
        run.name: evidence(run)
        for experiment in store.experiments(place / "runs")
        for run in experiment.runs()
    }


def _report(place: Path) -> dict[str, Any]:
    """All that the report has written, but for the time of writing and the place."""
    folder = place / "runs" / "small"
    texts = {path.name: path.read_text() for path in folder.glob("figures/*.svg")}
    texts["report.csv"] = (folder / "report.csv").read_text()
    about = json.loads((folder / "report.json").read_text().replace(str(folder), "small"))
    about.pop("written")
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    return {"about": about, "texts": texts, "runs": _runs(place)}


def _board(place: Path) -> dict[str, Any]:
    """What TensorBoard's files say; their names hold a time."""
    found: dict[str, Any] = {}
    for path in sorted((place / "runs").rglob("*tfevents*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(str(path.parent.relative_to(place)), []).append(content)
    return {"board": found, "runs": _runs(place)}


def _prepared(place: Path) -> dict[str, Any]:
    """The prepared copy of the images, member by member, and the run that has used it."""
    (copy,) = (place / "cache").rglob("*.zip")
    with zipfile.ZipFile(copy) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(members.pop("about.json"))
    about.pop("fingerprint")  # has times of the images' files
    return {"about": about, "members": members, "runs": _runs(place)}


def _write_images(place: Path) -> None:
    from PIL import Image

    (place / "small.yaml").write_text(IMAGES)
    for number, part in enumerate(("train",) * 16 + ("test",) * 8):
        path = place / "images" / part / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * number).save(path)


def commands(template: Path) -> dict[str, Command]:
    """Those that write. `template`: a folder with an interrupted and a finished experiment."""

    def copy(name: str) -> Callable[[Path], None]:
        def before(place: Path) -> None:
            shutil.copytree(template / name, place, dirs_exist_ok=True)

        return before

    def write(more: str) -> Callable[[Path], None]:
        def before(place: Path) -> None:
            write_experiment(place / "small.yaml", more)

        return before

    train, sweep = ("train", "small.yaml", "--quiet"), ("sweep", "small.yaml", "--quiet")
    listed = (
        Command("train", train, write(""), _runs),
        Command("resume", train, copy("interrupted"), _runs),
        Command("sweep", sweep, write(SETUPS), _runs),
        Command("report", ("report", "small"), copy("finished"), _report),
        Command("rebuild", ("tensorboard", "small", "--rebuild"), copy("finished"), _board),
        Command("prepare", (*train, "--restart"), _write_images, _prepared),
    )
    return {each.name: each for each in listed}
