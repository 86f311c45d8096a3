"""The colours of setups: the same in every figure, in every experiment and in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any
from zlib import crc32

# Petroff 2021, "Accessible color sequences for data visualization", arXiv:2107.02270: those six of
# its ten whose contrast with white is 3:1 or more (WCAG 2.2, 1.4.11); then four that have it, too.
COLORS = (
    "#717581",
    "#3f90da",
    "#832db6",
    "#e76300",
    "#bd1f01",
    "#a96b59",
    "#d0419a",
    "#006a5b",
    "#5e5a00",
    "#14347d",
)
DARK = {
    "#717581": "#8e98a3",
    "#832db6": "#b06fe0",
    "#bd1f01": "#f0563a",
    "#006a5b": "#3fae9c",
    "#5e5a00": "#a8a23c",
    "#14347d": "#a9b4ff",
}
"""For those that are hard to see on a dark ground: the same hue, lighter."""
KNOWN = {
    ("none", None): 0,
    ("batch", "before"): 1,
    ("batch", "after"): 2,
    ("group", "before"): 3,
    ("layer", "before"): 4,
    ("instance", "before"): 5,
}
"""Kind and placement of the normalizations that most studies compare: always the same colour."""
OTHERS = range(len(KNOWN), len(COLORS))


def places(setups: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, int]:
    """The place in `COLORS` of each setup; from 10 on the colours come again.

    `setups`: name and configuration (as in a manifest's `hparams`), in the order in which they
    began to train. So a setup that is added later takes no colour of an earlier one. The same
    name later on is the same setup.
    """
    found: dict[str, int] = {}
    for name, hparams in setups:
        if name not in found:
            taken = set(found.values())
            found[name] = next(place for place in _wanted(name, hparams) if place not in taken)
    return found


def begun(
    manifests: Iterable[tuple[str, Mapping[str, Any]]],
) -> list[tuple[str, Mapping[str, Any]]]:
    """Names of setups and manifests of their runs as `places` takes them."""
    order = sorted(
        manifests, key=lambda each: (float(each[1]["started"]), str(each[1].get("run", "")))
    )
    return [(name, manifest["hparams"]) for name, manifest in order]


def _wanted(name: str, hparams: Mapping[str, Any]) -> Iterable[int]:
    """The colour of its normalization; else one by its name that no well-known one has; else any
    other."""
    own = KNOWN.get((str(hparams.get("norm.kind")), hparams.get("norm.placement")))
    first = crc32(name.encode()) % len(OTHERS)
    order = [*([] if own is None else [own]), *OTHERS[first:], *OTHERS[:first]]
    order += [place for place in reversed(KNOWN.values()) if place != own]
    for turn in count():
        yield from (turn * len(COLORS) + place for place in order)


def color(place: int) -> str:
    """The colour at this place, as #rrggbb."""
    return COLORS[place % len(COLORS)]


def shades(place: int, count: int) -> list[str]:
    """The colour at this place so many times, from light to dark; once: as it is."""
    channels = bytes.fromhex(color(place)[1:])
    found = []
    for number in range(count):
        at = 0.0 if count == 1 else 1 - 2 * number / (count - 1)  # 1: lightest, -1: darkest
        mixed = (each + at * (0.45 * (255 - each) if at > 0 else 0.45 * each) for each in channels)
        found.append(f"#{bytes(map(round, mixed)).hex()}")
    return found
