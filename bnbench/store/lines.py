"""`metrics.jsonl`, read block by block: a long file takes time, and no more memory than a short."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from bnbench.store import files, record
from bnbench.store.record import Record, damaged

LATEST = 2**13
"""Bytes that hold a few evaluations, and no more than a disk reads at a time."""


def events(
    path: Path, without: Collection[str] = (), *, counted: int | None = None
) -> Iterator[Record]:
    """The events, oldest first. A last line that is still being written is left out. Raises
    DamagedError at a line that is no event.

    `without`: kinds of events that are not wanted; lines of theirs are not even decoded. `counted`:
    only those in so many bytes, all of which must be there.
    """
    unwanted = tuple(f'{{"event": "{kind}"'.encode() for kind in without)  # as we write them
    number, rest, length = 0, b"", 0
    for block in files.blocks(path, counted):
        length += len(block)
        *lines, rest = (rest + block).split(b"\n")
        numbered = enumerate(lines, start=number + 1)
        wanted = {at: line for at, line in numbered if not line.startswith(unwanted)}
        found = record.decode_records(list(wanted.values()))
        if found is None:
            bad = (at for at, line in wanted.items() if record.decode_records([line]) is None)
            why = "not a JSON event with all of its fields"
            raise damaged(path, why, line=next(bad, None))
        yield from found
        number += len(lines)
        if len(rest) > files.SMALL:
            why = f"longer than {files.SMALL:,} bytes, which no event is"
            raise damaged(path, why, line=number + 1)
    if counted is not None and (rest or length < counted):
        raise damaged(path, "its last events are not all there")


def latest(path: Path) -> list[Record]:
    """Events at the end, of the last few thousand bytes; none of them where one is no event."""
    lines = files.tail(path, LATEST).split(b"\n")
    return record.decode_records(lines[1:-1]) or []
