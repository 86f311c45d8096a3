"""What the files of a run say: how it ended, what happened, and how that is encoded."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from bnbench.errors import DamagedError
from bnbench.events import KINDS, Split
from bnbench.wording import printable

Record: TypeAlias = dict[str, Any]
"""One line of `metrics.jsonl`, or the content of one of the JSON files."""

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

_COUNTS = ("attempts", "parameters", "trainable_parameters", "normalization_layers")
"""Whole numbers of a manifest, where it has them."""

_LARGEST = 2**63
"""Beyond it nothing counts that a run counts, and other programs cannot hold it."""
_NUMBER: tuple[type, ...] = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (*_NUMBER, type(None)),  # None: it was not finite
    "str": (str,),
    "Split": (str,),
    "Statistics": (str,),
}
"""What JSON has for the fields of facts; for the others, a list."""
_PLACE = {"step": (int,), "examples": (int,), "train_seconds": _NUMBER}

# `json` makes one at each call, unless all is as usual.
_PLAIN, _SORTED = json.JSONDecoder(), json.JSONEncoder(sort_keys=True)
# Ten thousand runs have their keys in memory once, and what they say in words.
_SHARED = json.JSONDecoder(
    object_pairs_hook=lambda pairs: {
        sys.intern(key): sys.intern(value) if type(value) is str else value for key, value in pairs
    }
)

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
    run diverged. `seal`: checksums of the files that it rests on, by name, and of itself, and how
    many bytes of events there are; earlier versions had less of it, or none.
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
    seal: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def from_record(cls, record: Record) -> Result:
        """Raises ValueError where the record is not a result, or not the one that was sealed."""
        seal = record.get("seal", {})
        if not isinstance(seal, dict) or ("result" in seal and seal["result"] != _own(record)):
            raise ValueError("changed since the run ended")
        try:
            counted: Record = {name: _number(record[name]) for name in _COUNTED}
            if record["state"] == "diverged":
                where = {"step": _number(record["step"]), "reason": str(record["reason"])}
                return cls(state="diverged", **counted, **where, seal=seal)
            scores = {
                split: {kind: _score(said) for kind, said in record[split].items()}
                for split in get_args(Split)
                if split in record
            }
            if record["state"] != "completed" or not (
                "test" in scores and all("running" in each for each in scores.values())
            ):
                raise ValueError
        except (KeyError, TypeError, AttributeError, ValueError):
            raise ValueError("not a result") from None
        return cls(state="completed", **counted, scores=scores, seal=seal)

    def sealed(self, seal: Mapping[str, Any]) -> Record:
        """What `result.json` holds: the result with this seal, and a checksum of itself."""
        record = self.as_record()
        return record | {"seal": {"result": _own(record), **seal}}

    def as_record(self) -> Record:
        """What it says, in the order of `result.json`."""
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


_COUNTED = tuple(each.name for each in fields(Result) if each.type in ("int", "float"))


def _own(record: Record) -> str:
    """The checksum of a result itself."""
    said = {key: value for key, value in record.items() if key != "seal"}
    return digest(_SORTED.encode(said).encode())


def _score(said: Record) -> Score:
    loss = said["loss"]
    return Score(None if loss is None else _number(loss), _number(said["accuracy"]))


def _number(value: Any) -> Any:
    if _is(value, _NUMBER):
        return value
    raise TypeError


def _is(value: Any, types: tuple[type, ...]) -> bool:
    """Whether it has one of these types, and is finite if it is a number. True is no number."""
    kind = type(value)
    if kind not in types:
        return False
    return isfinite(value) if kind is float else kind is not int or abs(value) < _LARGEST


def parsed(path: Path, content: bytes | None, decoder: json.JSONDecoder = _PLAIN) -> Record | None:
    """The object in a JSON file, or None where there is none. Raises DamagedError."""
    if content is None:
        return None
    try:
        found = decoder.decode(content.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise damaged(path, "not a JSON object")
    return found


def manifest_in(path: Path, content: bytes | None) -> Record | None:
    """The manifest in a file, or None where there is none. Raises DamagedError."""
    found = parsed(path, content, _SHARED)
    if found is not None and not _is_manifest(found):
        raise damaged(path, "does not say what the run is")
    return found


def _is_manifest(record: Record) -> bool:
    """Whether it says what every reader of a manifest relies on."""
    if not all(isinstance(record.get(key), kind) for key, kind in _RELIED_ON.items()):
        return False
    numbers = {key: record[key] for key in ("seed", *_COUNTS) if key in record}
    plain = [each for each in record["hparams"].values() if type(each) is not str]
    listed = record["fingerprints"]
    return (
        isinstance(record["hparams"].get("setup"), str)
        and all(_is(each, (int,)) for each in numbers.values())
        and all(type(each) is bool or _is(each, _NUMBER) for each in (record["started"], *plain))
        and bool(listed)
        and all(isinstance(each, dict) for each in listed)
    )


def other_run(manifest: Record | None, name: str) -> str | None:
    """The id of the run that a manifest is of, where a folder of this name is not that run's: ids
    of a run end with the same hash. None as well where the manifest does not say."""
    said = str((manifest or {}).get("run", name))
    return None if said.rpartition("_")[2] == name.rpartition("_")[2] else said


def is_event(record: Any) -> bool:
    """Whether it is an event, with all that readers of its kind rely on. What a later version of
    bnbench has added does not matter."""
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        return False
    for name, types in _fields(record["event"]):
        value = record.get(name, record)  # an object is of no type that a field has
        kind = type(value)  # what follows is `_is`, whose call would take longer than all else
        if kind not in types or (kind is float and not isfinite(value)):
            return False
        if kind is int and not -_LARGEST < value < _LARGEST:
            return False
    return True


@cache
def _fields(event: str) -> tuple[tuple[str, tuple[type, ...]], ...]:
    kind = KINDS.get(event)
    if kind is None:
        return ()
    typed = {each.name: _TYPES.get(str(each.type), (list,)) for each in fields(kind)}
    return tuple((_PLACE | typed).items())


def digest(content: bytes) -> str:
    """The sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


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


def decode(content: bytes) -> Any:
    """What JSON says. Raises ValueError, RecursionError; also for text with half a character in it
    (a surrogate), which no other file can hold."""
    found = json.loads(content)
    if any(each in content for each in (rb"\ud", rb"\uD", b"\xed")):
        json.dumps(found, ensure_ascii=False).encode()
    return found


def decode_records(lines: list[bytes]) -> list[Record] | None:
    """All lines at once, in half the time of one after the other; None where one is damaged."""
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return None
    try:
        records = decode(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    return records if len(records) == len(lines) and all(map(is_event, records)) else None


def sealed(content: bytes) -> bytes:
    """A checkpoint with its checksum."""
    return content + _SEAL + digest(content).encode()


def unsealed(content: bytes) -> bytes | None:
    """What was sealed, or None where a byte of it changed."""
    whole, seal, checksum = content.rpartition(_SEAL)
    if not seal or digest(whole).encode() != checksum:
        return None
    return whole


def is_png(content: bytes) -> bool:
    """Whether it begins and ends as a whole PNG: https://www.w3.org/TR/png-3/"""
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


def damaged(path: Path, why: str, *, line: int | None = None) -> DamagedError:
    """The error for a file of a run, with what to do."""
    where = printable(str(path)) if line is None else f"{printable(str(path))}:{line}"
    # All but configuration and events are made again: the numbers are in the checkpoint.
    again = "remove the file, or " if path.suffix == ".json" else ""
    return DamagedError(f"{where}: {why}", do=f"{again}train the run again with --restart")
