"""Files of experiments: those that come with bnbench, and configurations written back as YAML."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnbench.config import registration, schema, yaml
from bnbench.config.experiments import Axis, ExperimentConfig
from bnbench.config.faults import Faults
from bnbench.config.layers import absolute, given
from bnbench.config.yaml import Source
from bnbench.errors import UsageError
from bnbench.wording import did_you_mean, listing, nearest, shortened, slug

# Text that no reader of YAML takes for anything but text; the rest is quoted.
BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*( [A-Za-z0-9_./(=-]+)*")
WORDS = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n"])
MODELINE = "# yaml-language-server: $schema="
CONTROL = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")


def dump(config: schema.RunConfig) -> str:
    """A resolved run as a file that `load_experiment` reads back to an equal run."""
    header = "# One run, fully resolved: every key has its value. `bnbench train` accepts it.\n"
    # A key that came later: at its default, a run's file is the one that it was before.
    unsaid = {"log"} if config.log == schema.LOGGERS else set()
    return header + _block(config.model_dump(exclude=unsaid))


def dump_experiment(experiment: ExperimentConfig) -> str:
    """The experiment as a file that loads to the same plan from any folder.

    The user's own text, where nothing was overridden and no path in it is relative; otherwise
    what it says, with the overrides and absolute paths.
    """
    data, folder = experiment.source.data or {}, experiment.source.folder
    if not experiment.overridden and absolute(data, folder) == data:
        if "experiment" in data:
            return experiment.source.text
        named = f"experiment: {inline(experiment.name)}\n{experiment.source.text}"
        # Before a flow mapping or a directive, the line would make it another file.
        said = yaml.parse(named, Source(""), faults := Faults()).data
        same = not faults.found and said == {"experiment": experiment.name, **data}
        if same and experiment.profile is None:
            return named
    header = "# The experiment as given, with the command line's overrides.\n"
    return header + _block(_content(experiment))


def dump_mapping(content: Mapping[str, Any], folder: str) -> str:
    """What an experiment's file would say that is given as a mapping, its relative paths starting
    at a folder. Raises UsageError for a value that YAML does not have."""
    return _block(absolute(_plain(content, ()), folder))


def _plain(value: Any, at: tuple[str, ...]) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): _plain(each, (*at, str(key))) for key, each in value.items()}
        case list() | tuple() | range():
            return tuple(_plain(each, at) for each in value)
        case _:
            raise UsageError(
                f"{'.'.join(at)}: a {type(value).__name__} is nothing that a study can hold",
                do="give text, numbers, true or false, lists and mappings",
            )


def _content(experiment: ExperimentConfig) -> dict[str, Any]:
    profile, seeds, tune = experiment.profile, experiment.seeds, experiment.tune
    judged = {"claims": [each.id for each in experiment.claims]} if experiment.claims_only else {}
    result: dict[str, Any] = {
        "experiment": experiment.name,
        "question": experiment.question,
        "profile": profile,
        # What else the profile says is in everything below.
        "profiles": {profile: judged} if profile is not None else None,
        "setup": experiment.label,
        "swept": experiment.swept or None,
        **{name: block or None for name, block in given(experiment.base).items()},
        "setups": {
            setup.name: given(setup.layer.blocks)
            | ({"axes": _axes(setup.axes)} if setup.axes else {})
            for setup in experiment.setups
        }
        or None,
        "axes": _axes(experiment.axes) or None,
        "seeds": len(seeds) if isinstance(seeds, range) else tuple(seeds),
        "looks": experiment.looks or None,
        "log": experiment.log if experiment.log != schema.LOGGERS else None,
        "tune": None if tune is None else tune.model_dump(exclude=None if tune.race else {"race"}),
        "claims": experiment.source.data["claims"] if experiment.claims else None,
        "published": experiment.source.data["published"] if experiment.published else None,
        "registered": None if experiment.registered is None else experiment.registered.model_dump(),
        "set": given(experiment.sets) or None,
    }
    return {key: value for key, value in result.items() if value is not None}


def _axes(axes: tuple[Axis, ...]) -> dict[str, Any]:
    return {axis.name: axis.values for axis in axes}


# --- text ---------------------------------------------------------------------------------


def _block(content: dict[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in content.items():
        name = f"{indent}{inline(key)}:"
        if isinstance(value, dict) and value and len(indent) < 4:
            lines.append(f"{name}\n{_block(value, indent + '  ')}")
        else:
            lines.append(f"{name} {inline(value)}\n")
    return "".join(lines)


def inline(value: Any) -> str:
    """A value as YAML has it in one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _text(value)
        case dict():
            return "{" + ", ".join(f"{inline(k)}: {inline(v)}" for k, v in value.items()) + "}"
        case _:
            return "[" + ", ".join(inline(item) for item in value) + "]"


def _text(value: str) -> str:
    if BARE.fullmatch(value) and value.lower() not in WORDS:
        return value
    return CONTROL.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False)
    )


# --- shipped experiments ---------------------------------------------------------------------


def folder() -> Path:
    """In a wheel `bnbench/configs`; in a checkout the repository's `configs`."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[tuple[str, Path, str]]:
    """Name, file and one-line description of each, sorted by name."""
    return [(as_typed(path), path, _description(path)) for path in sorted(folder().rglob("*.yaml"))]


def read_text(path: Path) -> str:
    """What a file says, sound or not. Raises ConfigError where it is no text."""
    source = yaml.read(str(path), "", faults := Faults())
    if faults.found and not source.text:
        raise faults.error()
    return source.text


def renamed(text: str, name: str, schema: str) -> str:
    """The text of an experiment's file under another name, and with another JSON Schema."""
    text = re.sub("^experiment:.*\\n", "", registration.unregistered(text), flags=re.MULTILINE)
    text = re.sub(f"^{re.escape(MODELINE)}.*\\n", "", text, flags=re.MULTILINE)
    return f"{MODELINE}{schema}\nexperiment: {inline(slug(name))}\n{text}"


def _description(path: Path) -> str:
    """The question that the file asks, else its first comment."""
    source = yaml.read(str(path), "", Faults())
    question = source.data.get("question") if isinstance(source.data, dict) else None
    if isinstance(question, str):
        return " ".join(question.split())
    for line in source.text.splitlines():
        comment = line.lstrip("# ").strip()
        if line.startswith("#") and comment and not line.startswith(MODELINE):
            return comment
    return ""


def find_configs(name: str) -> list[Path]:
    """The file that a name means, or all of a folder's, sorted. Raises UsageError for none."""
    inside = name.removeprefix("./").removeprefix("configs/").rstrip("/")
    ours = [each for each in folder().iterdir() if each.is_dir() and each.name == inside]
    for path in (Path(name), *ours):
        # os.path does not raise for what is too long or no path at all.
        if os.path.isdir(path) and (files := sorted(path.glob("*.yaml"))):  # noqa: PTH112
            return files
    return [find_config(name)]


def find_config(name: str) -> Path:
    """The file that a name means: a path that exists, or a shipped experiment.

    Raises UsageError otherwise; it names the file that was meant, or what is shipped, the nearest
    first.
    """
    path, short, known = _meant(name)
    if path is not None:
        return path
    is_folder = os.path.isdir(name)  # noqa: PTH112
    kind = "is a folder, not an experiment" if is_folder else "is not there"
    parent = Path(name).parent
    here = map(str, parent.glob("*.yaml")) if os.path.isdir(parent) else ()  # noqa: PTH112
    do = did_you_mean(nearest(name, here, 0.75))
    if do is None:
        order = sorted(
            known, key=lambda each: (-difflib.SequenceMatcher(None, short[:80], each).ratio(), each)
        )
        do = f"shipped experiments: {listing(order, 'and')}"
    raise UsageError(f"{shortened(name)} {kind}, and no shipped experiment has that name", do=do)


def _meant(name: str) -> tuple[Path | None, str, Mapping[str, Path]]:
    """The file that a name means, if there is one; the name as a shipped one, and all of these."""
    known = {as_typed(path): path for path in sorted(folder().rglob("*.yaml"))}
    short = name.replace("\\", "/").removeprefix("./").removeprefix("configs/")
    short = short.removesuffix(".yaml").removesuffix(".yml")
    there = os.path.exists(name) and not os.path.isdir(name)  # noqa: PTH110, PTH112
    return Path(name) if there else known.get(short), short, known


def experiment_of(name: str) -> str | None:
    """What the experiment of a file, or of a shipped one, is called; None of what is neither."""
    path, *_ = _meant(name)
    if path is None or path.suffix not in (".yaml", ".yml"):
        return None
    data = yaml.read(str(path), "", Faults()).data
    said = data.get("experiment") if isinstance(data, dict) else None
    return slug(said if isinstance(said, str) else path.stem)


def as_typed(path: Path) -> str:
    """What a file is called on the command line: a shipped one by its name."""
    top = folder()
    return path.relative_to(top).with_suffix("").as_posix() if top in path.parents else str(path)
