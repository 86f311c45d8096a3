"""What the files of a run say: how it ended, in which state it is, how they are encoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from bnbench.errors import StorageError

if TYPE_CHECKING:
    from bnbench.store.run_folder import RunFolder

Record: TypeAlias = dict[str, Any]
"""One line of `metrics.jsonl`, or the content of one of the JSON files."""

State: TypeAlias = Literal[
    "completed", "diverged", "running", "interrupted", "failed", "damaged", "new"
]
STATES: tuple[str, ...] = get_args(State)

_COUNTED = (
    "steps",
    "examples",
    "train_seconds",
    "evaluation_seconds",
    "probe_seconds",
    "wall_seconds",
    "images_per_second",
)
_RELIED_ON = {
    "setup": str,
    "seed": int,
    "cell": str,
    "point": dict,
    "hparams": dict,
    "started": int | float,
    "started_utc": str,
    "command": list,
    "versions": dict,
    "fingerprints": list,
}
"""What every reader of a manifest may take for granted."""

_SEAL = b"bnbench-sha256:"
"""Separates a checkpoint from the checksum after it. A checkpoint is a zip archive: its readers
start at its directory and ignore what follows."""


class Score(NamedTuple):
    """Mean cross-entropy in nats, None where it was not finite, and accuracy as a fraction."""

    loss: float | None
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended: the content of `result.json`.

    `steps` and `examples` were trained on in `train_seconds`; `wall_seconds` include everything.
    `scores`: by split and kind of statistics, of completed runs. `step`, `reason`: where and why a
    run diverged.
    """

    state: Literal["completed", "diverged"]
    steps: int
    examples: int
    train_seconds: float
    evaluation_seconds: float
    probe_seconds: float
    wall_seconds: float
    images_per_second: float
    scores: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    step: int | None = None
    reason: str | None = None

    @classmethod
    def from_record(cls, record: Record) -> Result:
        """Raises ValueError where the record is not a result."""
        try:
            counted: Record = {name: _number(record[name]) for name in _COUNTED}
            if record["state"] == "diverged":
                where = {"step": _number(record["step"]), "reason": str(record["reason"])}
                return cls(state="diverged", **counted, **where)
            scores = {
                split: {kind: _score(**said) for kind, said in kinds.items()}
                for split, kinds in record.items()
                if split not in ("state", *_COUNTED)
            }
            if record["state"] != "completed" or not all(
                "running" in scores[split] for split in ("val", "test")
            ):
                raise ValueError
        except (KeyError, TypeError, AttributeError, ValueError):
            raise ValueError("not a result") from None
        return cls(state="completed", **counted, scores=scores)

    def as_record(self) -> Record:
        """What `result.json` holds, in its order."""
        record: Record = {"state": self.state} | {name: getattr(self, name) for name in _COUNTED}
        if self.state == "diverged":
            return record | {"step": self.step, "reason": self.reason}
        return record | {
            split: {kind: score._asdict() for kind, score in kinds.items()}
            for split, kinds in self.scores.items()
        }

    def score(self, split: str, statistics: str) -> Score | None:
        """The final score of a split under a kind of statistics, or None."""
        return self.scores.get(split, {}).get(statistics)

    @property
    def divergence(self) -> str | None:
        """Where and why the run diverged, or None."""
        if self.state == "completed":
            return None
        return f"step {self.step}: {' '.join(str(self.reason).split())}"  # of one line, always


def _score(loss: Any, accuracy: Any) -> Score:
    return Score(None if loss is None else _number(loss), _number(accuracy))


def _number(value: Any) -> Any:
    if type(value) in (float, int):
        return value
    raise TypeError


@dataclass(frozen=True)
class RunRecord:
    """A run as it is on disk.

    `state`: from the evidence; damaged: what decides it cannot be read. `error`: the content of
    `error.json` of a failed run. `problem`: why the run failed, or what cannot be read.
    """

    folder: RunFolder
    state: State
    result: Result | None = None
    error: Record | None = None
    problem: str | None = None

    @cached_property
    def manifest(self) -> Record | None:
        """What the run was started with, or None. Raises StorageError where it is damaged."""
        return self.folder.manifest()


def read(run: RunFolder) -> RunRecord:
    """How a run stands. Manifest and events are read when they are asked for."""
    try:
        result = run.result()
        if result is not None:
            return RunRecord(run, result.state, result)
        if run.held():
            return RunRecord(run, "running")
        error = run.error()
    except StorageError as damage:
        return RunRecord(run, "damaged", problem=damage.what)
    if error is not None:
        why = error.get("message")
        return RunRecord(run, "failed", error=error, problem=None if why is None else str(why))
    return RunRecord(run, "interrupted" if run.has_trained() else "new")


def is_manifest(record: Record) -> bool:
    """Whether it says what every reader of a manifest relies on."""
    typed = all(isinstance(record.get(key), kind) for key, kind in _RELIED_ON.items())
    return typed and bool(record["fingerprints"])


def cell_of(manifest: Record) -> str:
    """The hash that replicates share, and nobody else, whatever their setup is called."""
    return str(manifest["cell"]).rpartition("_")[2]


def encode(record: Record) -> bytes:
    """A record as a file of its own, in strict JSON."""
    return _json(record, indent=2)


def encode_records(records: Iterable[Record]) -> bytes:
    """Events as lines of strict JSON."""
    return b"".join(map(_json, records))


def _json(record: Record, indent: int | None = None) -> bytes:
    """With "?" for what is not Unicode: bytes of a path, in the command or in an error."""
    text = json.dumps(record, indent=indent, allow_nan=False, ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"


def decode_records(lines: list[bytes]) -> list[Record] | None:
    """All lines at once, in half the time of one after the other; None where one is damaged."""
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return None
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    whole = len(records) == len(lines) and all(isinstance(each, dict) for each in records)
    return records if whole else None


def sealed(content: bytes) -> bytes:
    """A checkpoint with its checksum."""
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def unsealed(content: bytes) -> bytes | None:
    """What was sealed, or None where a byte of it changed."""
    whole, seal, digest = content.rpartition(_SEAL)
    if not seal or hashlib.sha256(whole).hexdigest().encode() != digest:
        return None
    return whole
