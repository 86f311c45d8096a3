"""What the runs of an experiment have in common, and what they differ in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bnbench.config import identity, loading, plans
from bnbench.errors import BnbenchError
from bnbench.sinks.tensorboard.tabs import Column, columns
from bnbench.store import ExperimentFolder, Record

Row = Mapping[str, bool | int | float | str]


@dataclass(frozen=True, slots=True)
class Description:
    """`question`: as in its file. `setups`: side by side, as Markdown; empty where there is one.
    `probes`: names of those that any run has."""

    question: str | None
    columns: tuple[Column, ...]
    setups: str
    probes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What `experiment.yaml` describes: a row for each run, seeds aside."""

    question: str | None
    rows: tuple[Row, ...]
    probes: frozenset[str]


def describe(experiment: ExperimentFolder, *, own: Record | None = None) -> Description:
    """From the experiment's file and the runs that are there.

    `own`: the manifest of a run that asks on its own behalf. Where the file describes it, the
    other runs need not be looked at.
    """
    plan = _plan(experiment)
    rows, probes = list(plan.rows), set(plan.probes)
    if own is None or own["hparams"] not in rows:
        manifests = [run.manifest_or_none() for run in experiment.runs()]
        for manifest in (*manifests, own):
            if manifest is not None and "hparams" in manifest:
                rows.append(manifest["hparams"])
                probes |= set(manifest["probes"])
    return Description(plan.question, columns(rows), _side_by_side(rows), tuple(sorted(probes)))


def _plan(experiment: ExperimentFolder) -> Plan:
    content = experiment.content()
    if content is None:
        return Plan(None, (), frozenset())
    return _read_plan(experiment.file, content)


@lru_cache(maxsize=4)
def _read_plan(path: Path, content: bytes) -> Plan:  # noqa: ARG001 - what the cache goes by
    try:
        experiment = loading.load_experiment(path)
        runs = plans.expand(experiment).runs
    except BnbenchError:  # a file that it names has moved: the runs themselves tell enough
        return Plan(None, (), frozenset())
    first = [run for run in runs if run.seed == runs[0].seed]
    return Plan(
        experiment.question,
        tuple(identity.hparams(run) for run in first),
        frozenset(name for run in first for name in identity.probes(run)),
    )


def _side_by_side(rows: Iterable[Row]) -> str:
    """A line for each setup, a column for each key in which setups differ."""
    setups: dict[str, dict[str, dict[str, None]]] = {}
    for row in rows:
        values = setups.setdefault(str(row["setup"]), {})
        for key, value in row.items():
            values.setdefault(key, {})[_in_words(value)] = None
    if len(setups) < 2:
        return ""
    shown = {
        setup: {key: ", ".join(found) for key, found in values.items()}
        for setup, values in setups.items()
    }
    keys = dict.fromkeys(key for values in shown.values() for key in values if key != "setup")
    keys = dict.fromkeys(
        key for key in keys if len({values.get(key) for values in shown.values()}) > 1
    )
    lines = [["setup", *keys], ["---"] * (1 + len(keys))]
    lines += [[setup, *(values.get(key, "–") for key in keys)] for setup, values in shown.items()]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _in_words(value: bool | int | float | str) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
