"""What was decided before the evidence: kept in the file with its hash, and compared afterwards.

`decided` says it in lines of text, the same whatever the order of keys: seeds, what is tuned and by
what, each block of the configuration with all values that decide the runs, what is a setup's own,
and of each claim what it is judged by; not its words. A registration is a block at the end of the
file, so that the file in the runs folder holds it as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from bnbench.config import schema
from bnbench.config.experiments import Claim, ExperimentConfig
from bnbench.config.identity import RECORDED, decisive
from bnbench.wording import in_words

BLOCK = re.compile(r"^registered:.*\n(?:[ #].*\n|\n)*", re.MULTILINE)
APART = {"version", "seed"}  # said for all runs, or of the format alone
WORDS_OF_A_CLAIM = {"id", "says", "literature"}


def decided(experiment: ExperimentConfig, runs: Iterable[schema.RunConfig]) -> tuple[str, ...]:
    """A line `name: part; part; …` for each thing, each part a key and its values."""
    values: dict[str, dict[str, dict[str, None]]] = {}  # by setup, then by key: an ordered set
    first = experiment.seeds[0]
    for run in (run for run in runs if run.seed == first):
        of_setup = values.setdefault(run.setup, {})
        recorded = {f"train.{key}": getattr(run.train, key) for key in RECORDED}
        probes = {f"probes.{name}": "true" for name in run.probes.chosen()}
        # What identifies runs: a key that comes later, at its default, changes no registration.
        facts = {key: value for key, value in decisive(run).items() if key not in APART}
        for key, value in {**facts, **recorded, **probes}.items():
            of_setup.setdefault(key, {})[in_words(value)] = None
    said = {
        setup: {key: ", ".join(sorted(found)) for key, found in keys.items()}
        for setup, keys in values.items()
    }
    every = [*said.values()]
    common = {
        key: value for key, value in (every[0] if every else {}).items()
        if all(each.get(key) == value for each in every)
    }  # fmt: skip
    blocks: dict[str, dict[str, str]] = {}
    for key, value in common.items():
        block, _, name = key.partition(".")
        blocks.setdefault(block, {})[name] = value
    tune = experiment.tune
    return (
        f"seeds: {', '.join(map(str, experiment.seeds))}",
        *([f"looks: {', '.join(map(str, experiment.looks))}"] if experiment.looks else []),
        f"tune: {'none' if tune is None else f'axis {tune.axis}; by {tune.by}'}"
        + "; race" * (tune is not None and tune.race),
        *(_line(block, parts) for block, parts in blocks.items()),
        *(
            _line(f"setup {setup}", {k: v for k, v in keys.items() if k not in common})
            for setup, keys in said.items()
        ),
        *map(_claim, experiment.claims),
    )


def _line(name: str, parts: dict[str, str]) -> str:
    return f"{name}: {'; '.join(f'{key} {parts[key]}' for key in sorted(parts))}"


def _claim(claim: Claim) -> str:
    fields = set(schema.ClaimConfig.model_fields) - WORDS_OF_A_CLAIM
    given = claim.model_dump(include=fields, exclude_defaults=True)
    plain = {
        key: ", ".join(f"{k}={in_words(v)}" for k, v in value.items())
        if isinstance(value, dict) else in_words(value)
        for key, value in given.items()
    }  # fmt: skip
    return _line(f"claim {claim.id}", plain | {"smallest_effect": in_words(claim.smallest_effect)})


def digest(lines: Sequence[str]) -> str:
    """The sha256 of the lines, in hex."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def registered(text: str, lines: Sequence[str], on: datetime) -> str:
    """The text of a file with these lines registered, instead of those that it may have had."""
    block = [
        "registered:  # by `bnbench configs check --register`; a change of it is seen by the hash",
        f"  date: {json.dumps(on.isoformat(timespec='seconds'))}",
        f"  sha256: {digest(lines)}",
        "  decided:",
        *(f"    - {json.dumps(line, ensure_ascii=False)}" for line in lines),
    ]
    return f"{unregistered(text).rstrip()}\n" + "\n".join(block) + "\n"


def unregistered(text: str) -> str:
    """The text without its registration."""
    return BLOCK.sub("", text if text.endswith("\n") else f"{text}\n")


def changes(then: schema.RegisteredConfig, now: Sequence[str]) -> list[str]:
    """What is not as it was registered, a sentence each; none where all is."""
    found = []
    if digest(then.decided) != then.sha256:
        found.append("the registration itself was changed: its hash is of another one")
    before, after = ({line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
                     for lines in (then.decided, now))  # fmt: skip
    for name in dict.fromkeys((*after, *before)):
        if name not in before:
            found.append(f"{name} is new")
        elif name not in after:
            found.append(f"{name} is left out")
        elif before[name] != after[name]:
            here, there = (set(each[name].split("; ")) for each in (after, before))
            is_now, was = (
                "; ".join(sorted(each)) or "nothing" for each in (here - there, there - here)
            )
            found.append(f"{name}: {is_now}, registered {was}")
    return found
