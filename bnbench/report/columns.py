"""What the columns of a table tell: which one holds the setups, and what else tells rows apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from itertools import permutations
from math import isfinite

from bnbench.config import yaml
from bnbench.errors import UsageError
from bnbench.report.table import Row, Table
from bnbench.wording import cut, in_words, listing, shortened

TIMES = 20.0
"""So many times as much, and up to 100, are percentages beside fractions: 20 % and 1 are not."""


def _named(source: yaml.Source) -> tuple[set[str], set[str]]:
    """The metrics and the arms of all claims."""
    named, arms = set[str](), set[str]()
    for each in source.data["claims"]:
        named.add(each["metric"])
        for side in (each["better"], each.get("worse") or ()):
            arms |= {side} if isinstance(side, str) else set(side)
    return named, arms


def setup_column(found: Table, source: yaml.Source, name: str | None) -> int | None:
    """The column that tells setups apart; None where each of them is a column itself.

    Raises UsageError where it is not plain which.
    """
    if name is not None:
        return found.column(name, "--setup")
    named, arms = _named(source)
    lone = {arm.partition("@")[0] for arm in arms}
    if lone <= {*found.columns} and not any(found.find(each) is not None for each in named):
        return None
    there = [{text.strip() for text in found.texts(at)} for at in range(len(found.columns))]
    known = [sum(bool({arm, arm.partition("@")[0]} & texts) for arm in arms) for texts in there]
    best = [at for at, count in enumerate(known) if count and count == max(known)]
    # Columns that sort the rows alike are one.
    kinds = {tuple(text if text in lone | arms else "" for text in found.texts(at)): at
             for at in reversed(best)}  # fmt: skip
    if len(kinds) == 1:
        return min(kinds.values())
    words = listing(sorted(map(shortened, lone)), "and")
    columns = cut([shortened(found.columns[at]) for at in best or range(len(found.columns))])
    if best:
        raise UsageError(f"{found.name}: several columns hold {words}", do=f"--setup: {columns}")
    raise UsageError(
        f"{found.name}: no column holds {words}",
        do=f"--setup names the column of setups; the columns are {columns}",
    )


def also_differ(
    table: Table, setup: int, named: Collection[int | None], sides: Sequence[Sequence[Row]]
) -> list[str]:
    """Columns that nobody has named, with one value on each side of a claim, and another; each with
    its values. A column without a value on one side is a key of the setup on the other."""
    if min(map(len, sides)) < 2:
        return []
    found = []
    for at, name in enumerate(table.columns):
        values = [sorted({row.values[at].strip() for row in side}) for side in sides]
        setups = [sorted({row.values[setup].strip() for row in side}) for side in sides]
        one = [*map(len, values)] == [1, 1] and [""] not in values and values[0] != values[1]
        if one and values != setups and at not in named:
            words = ", ".join(shortened(each) for (each,) in values)
            found.append(f"{shortened(name)} ({words})")
    return found


def told_apart(table: Table, named: Collection[int | None], rows: Sequence[Row]) -> list[str]:
    """Columns that nobody has named and in which rows differ, those with the fewest values first,
    each as COLUMN=VALUE for the first row. One with a value for each row names none of them."""
    counts = {
        at: len({row.values[at] for row in rows})
        for at in range(len(table.columns))
        if at not in named
    }
    few = sorted(
        (at for at, count in counts.items() if 1 < count < len(rows)), key=lambda at: counts[at]
    )
    return [f"{shortened(table.columns[at])}={shortened(rows[0].values[at])}" for at in few]


def seen(name: str) -> str:
    """A name in small letters, without what nobody sees; what looks alike may have other codes."""
    shown = unicodedata.normalize("NFKC", name)
    return "".join(each for each in shown if unicodedata.category(each) != "Cf").casefold()


def percentages_beside_fractions(sides: Sequence[tuple[str, Sequence[float]]]) -> Iterator[str]:
    """Sentences on sides of a claim, each with its values, that seem to count in other units."""
    finite = [(words, list(filter(isfinite, values))) for words, values in sides]
    for (one, low), (other, high) in permutations([each for each in finite if each[1]], 2):
        least = max(1, TIMES * max(low))
        if 0 < min(low) <= max(low) <= 1 and least < min(high) <= max(high) <= 100:
            yield (
                f"{one} has at most {in_words(max(low))}, {other} at least {in_words(min(high))}: "
                "are these fractions and percentages?"
            )
