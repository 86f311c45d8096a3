"""The experiments that come with bnbench, and how a name finds its file."""

from __future__ import annotations

import difflib
from pathlib import Path

from bnbench.config.faults import Faults, listing, shortened
from bnbench.config.nodes import Mapping, Scalar, Source
from bnbench.config.strict_yaml import parse, read_text
from bnbench.errors import UsageError


def folder() -> Path:
    """In a wheel `bnbench/configs`; in a checkout the repository's `configs`."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[tuple[str, Path, str]]:
    """Name, file and one-line description of each, sorted by name."""
    top = folder()
    files = sorted(top.rglob("*.yaml"))
    return [
        (path.relative_to(top).with_suffix("").as_posix(), path, _description(path))
        for path in files
    ]


def _description(path: Path) -> str:
    """The question that the file asks, else its first comment."""
    source, faults = Source(str(path), ""), Faults()
    text = read_text(str(path), source, faults) or ""
    root = parse(text, source, faults)
    if isinstance(root, Mapping) and "question" in root.entries:
        node = root.entries["question"].node
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return " ".join(node.value.split())
    for line in text.splitlines():
        comment = line.lstrip("# ").strip()
        if line.startswith("#") and comment and not comment.startswith("yaml-language-server"):
            return comment
    return ""


def find_configs(name: str) -> list[Path]:
    """The file that a name means, or all of a folder's, sorted. Raises UsageError for none."""
    inside = name.removeprefix("./").removeprefix("configs/").rstrip("/")
    ours = [each for each in folder().iterdir() if each.is_dir() and each.name == inside]
    for path in (Path(name), *ours):
        try:
            files = sorted(path.glob("*.yaml")) if path.is_dir() else []
        except (OSError, ValueError):  # too long, or no path at all
            files = []
        if files:
            return files
    return [find_config(name)]


def find_config(name: str) -> Path:
    """The file that a name means: a path that exists, or a shipped experiment.

    Raises UsageError otherwise; it names what is shipped, the nearest first.
    """
    path = Path(name)
    try:
        there, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # too long, or no path at all
        there = is_folder = False
    if there and not is_folder:
        return path
    known = {each: file for each, file, _ in shipped()}
    short = name.replace("\\", "/").removeprefix("./").removeprefix("configs/")
    short = short.removesuffix(".yaml").removesuffix(".yml")
    if short in known:
        return known[short]
    kind = "is a folder, not an experiment" if is_folder else "is not there"
    order = sorted(
        known,
        key=lambda each: (-difflib.SequenceMatcher(None, short[:80], each).ratio(), each),
    )
    do = f"shipped experiments: {listing(order, 'and')}" if order else None
    raise UsageError(f"{shortened(name)} {kind}, and no shipped experiment has that name", do=do)
