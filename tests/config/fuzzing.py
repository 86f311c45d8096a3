"""What must hold of every configuration, however broken: it is read, or refused in our words.

    python -c "from tests.config.fuzzing import outcome; print(outcome(7))"

judges the case of seed 7; nothing is ever trained.
"""

from __future__ import annotations

import functools
import json
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from bnbench.config import (
    MAX_RUNS,
    ExperimentConfig,
    Plan,
    dump,
    dump_experiment,
    expand,
    expand_one,
    identity,
    load_experiment,
    run_id,
    schema,
)
from bnbench.errors import BnbenchError, ConfigError
from tests.config.fuzz_cases import Case, drawn
from tests.config.fuzz_trees import flow, shuffled

SECONDS = 1.0
RUNS_A_SECOND = 2_000  # what expanding a large grid may take beyond that
LINE_LENGTH = 400  # of a sentence; a hint lists keys and may have twice as many characters
TOTAL_LENGTH = 40_000
FOREIGN = re.compile(r"Traceback|pydantic|<class|object at 0x|[A-Z]\w*Error\b|NoneType|\berrno\b")


@functools.cache
def workspace() -> tuple[tempfile.TemporaryDirectory[str], Path, Path]:
    """A folder with what the cases name, and another one; removed when the process ends."""
    kept = tempfile.TemporaryDirectory(prefix="bnbench-fuzz-")
    here, elsewhere = Path(kept.name, "here"), Path(kept.name, "elsewhere")
    here.mkdir()
    elsewhere.mkdir()
    (here / "own.py").write_text("class Own: ...\n")
    (here / "bad.py").write_text("class Own(:\n")
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            for number in range(8):
                image = here / "images" / part / label / f"{number}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(b"counted, never read")
    return kept, here, elsewhere


def outcome(seed: int) -> str:
    """`valid` or `refused`; AssertionError, with the case, for anything else."""
    case = drawn(seed)
    try:
        return judged(case, random.Random(f"judge {seed}"))
    except Exception as error:
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        raise AssertionError(
            f"seed {seed}: {kind}{error}\n{case.overrides}\n{case.data!r}"
        ) from error


def judged(case: Case, rng: random.Random) -> str:
    """The outcome of a case; whatever it raises is a defect."""
    _, here, _ = workspace()
    path = here / "x.yaml"
    path.write_bytes(case.data)
    begun = time.process_time()
    runs, result = 0, "refused"
    try:
        experiment = load_experiment(path, case.overrides)
        plan = expand(experiment)
        runs, result = len(plan.runs), "valid"
    except BnbenchError as error:
        require_sentences(error, path, case.data)
    seconds = time.process_time() - begun
    must(seconds < SECONDS + runs / RUNS_A_SECOND, f"took {seconds:.2f} s for {runs} runs")
    if result == "valid":
        require_sound(experiment, plan, case, rng)
    return result


def must(condition: bool, otherwise: str) -> None:
    """Raises AssertionError; unlike `assert`, under `python -O` as well."""
    if not condition:
        raise AssertionError(otherwise)


def require_sentences(error: BnbenchError, path: Path, data: bytes) -> None:
    """A refusal names its places, in lines that a person can read."""
    must(error.exit_code == 2, f"exit code {error.exit_code}: {error}")
    must(isinstance(error, ConfigError), f"{type(error).__name__} in place of ConfigError: {error}")
    assert isinstance(error, ConfigError)
    must(bool(error.faults), "no faults")
    must(len(str(error)) <= TOTAL_LENGTH, f"{len(str(error)):,} characters: {str(error)[:2000]}")
    lines = 1 + sum(data.count(mark) for mark in (b"\n", b"\r", b"\xc2\x85", b"\xe2\x80"))
    place = re.compile(re.escape(str(path)) + r"(?::(\d+):(\d+))?|--(set|over|seeds?)( .+)?")
    for fault in error.faults:
        at = place.fullmatch(fault.where)
        must(at is not None, f"no place: {fault}")
        assert at is not None
        if at[1]:
            must(1 <= int(at[1]) <= lines and int(at[2]) >= 1, f"not in the file: {fault}")
        for text, limit in ((fault.message, LINE_LENGTH), (fault.hint or "x", 2 * LINE_LENGTH)):
            must(bool(text.strip()), f"nothing said: {fault!r}")
            must(len(text) <= limit, f"{len(text)} characters: {text}")
            must(text.isprintable(), f"not printable: {text!r}")
        must(not FOREIGN.search(fault.message), f"not our words: {fault}")


def require_sound(experiment: ExperimentConfig, plan: Plan, case: Case, rng: random.Random) -> None:
    """What is accepted keeps its meaning: written back, moved, reordered and commented."""
    runs = plan.runs
    must(1 <= len(runs) <= MAX_RUNS, f"{len(runs)} runs")
    for run in rng.sample(runs, min(3, len(runs))):
        must(re.fullmatch(r"[a-z0-9._-]{1,64}", run_id(run)) is not None, f"id {run_id(run)}")
        require_stable(run, rng)
    for line in (*plan.notes, *plan.warnings):
        must(len(line) <= LINE_LENGTH and line.isprintable(), f"note {line!r}")
    if len(runs) > 300:
        return
    again = expand(loaded(dump_experiment(experiment)))
    must(again.runs == runs, "the experiment's file holds other runs")
    if case.tree is not None:
        _, here, _ = workspace()
        path = here / "x.yaml"
        path.write_text(flow(shuffled(rng, case.tree)), encoding="utf-8")
        other = expand(load_experiment(path, case.overrides))
        must(identities(other) == identities(plan), "the order of keys matters")


def require_stable(run: schema.RunConfig, rng: random.Random) -> None:
    """A run and its file are the same thing, in any order of keys and with any comments."""
    text = dump(run)
    must(expand_one(loaded(text)) == run, f"not read back: {text}")
    must(identity(expand_one(loaded(text))) == identity(run), f"another identity: {text}")
    remarked = "# a remark\n" + text.replace("\n", "  # é\n\n")
    must(identity(expand_one(loaded(remarked))) == identity(run), f"comments matter: {remarked}")
    values = reordered(rng, run.model_dump())
    turned = expand_one(loaded(json.dumps(values, ensure_ascii=False)))
    must(turned == run and identity(turned) == identity(run), f"order matters: {values}")


def reordered(rng: random.Random, value: Any) -> Any:
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: reordered(rng, value[key]) for key in rng.sample(sorted(value), len(value))}
    return [reordered(rng, item) for item in value] if isinstance(value, list | tuple) else value


def loaded(text: str) -> ExperimentConfig:
    """The text as a file of another folder, read."""
    _, _, elsewhere = workspace()
    path = elsewhere / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path)


def identities(plan: Plan) -> set[str]:
    """What the runs of a plan are, whatever they are called."""
    return {identity(run) for run in plan.runs}
