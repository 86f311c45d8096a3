"""What the terminal shows: the report, and what ends a run or a sweep. Sentences take at most 80
columns, tables all that there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnbench.report import words
from bnbench.report.study import StudiedRun, Study
from bnbench.store import Record
from bnbench.wording import counted

MOST_CELLS, MOST_COLUMNS = 40, 80
NARROWEST_NAME = 12
"""Columns that a setup's name needs in a table; a longer one is folded."""


PLACES = 2
"""How many of the parts of a report, the last ones, say where its files are."""


def terminal(record: Record, *, columns: int = 80) -> Iterator[RenderableType]:
    """The report: question, answer, table, verdicts, where the files are; what to print, one below
    the other, no wider than `columns`."""
    experiment, claims = record["experiment"], record["claims"]
    yield Text(experiment["question"] or experiment["name"], style="bold")
    notices = record["notices"]
    for notice in (each for each in notices if each["kind"] != "other"):
        yield from _lines(notice["text"], "! ", columns)
    yield Text("")
    for sentence in [_counts(claims)] if claims else record["answer"]:  # verdicts follow below
        yield from _lines(sentence, "", columns)
    for notice in (each for each in notices if each["kind"] == "other"):
        yield from _lines(notice["text"], "  ", columns)
    yield from _cells_of_report(record, columns)
    yield Text("")
    for claim in claims:
        yield from _verdict(claim, columns)
    for each in record["further"]:
        yield from _lines(each, "", columns)
    for each in record["published"]:
        yield from _lines(words.beside(each), "published: ", columns)
    if claims or record["published"]:
        yield Text("")
    folder = experiment["path"]
    yield Text(f"page:    {folder}/report.html", overflow="fold")
    yield Text(f"data:    {folder}/report.json, report.csv, figures/", overflow="fold")


def _counts(claims: Sequence[Record]) -> str:
    outcomes = Counter(claim["outcome"] for claim in claims)
    numbers = ", ".join(f"{outcomes[each]} {each}" for each in words.SYMBOLS if outcomes[each])
    return f"{counted(len(claims), 'claim')}: {numbers}."


def verdicts(record: Record, *, columns: int = 80) -> Iterator[Text]:
    """The record of `foreign.judged_table`: what a reader must know, and its verdicts."""
    yield from _lines(_counts(record["claims"]), "", columns)
    for notice in record["notices"]:
        yield from _lines(notice, "  ", columns)
    for claim in record["claims"]:
        yield from _verdict(claim, columns)


def _lines(text: str, prefix: str, columns: int) -> Iterator[Text]:
    """Wrapped, but not within what is tied, nor within names with hyphens."""
    width = min(columns, MOST_COLUMNS) - len(prefix)
    for number, line in enumerate(wrap(words.tied(text), width, break_on_hyphens=False) or [""]):
        start = prefix if number == 0 else " " * len(prefix)
        yield Text(start + line.replace(words.NO_BREAK, " "))


def _cells_of_report(record: Record, columns: int) -> Iterator[RenderableType]:
    axes, cells, tuned = record["experiment"]["varying"], record["cells"], None
    if record["tuned"]:
        tuned = record["experiment"]["tune"]["axis"]
    if tuned is not None and len(cells) > MOST_CELLS:
        cells = [cell for cell in cells if cell["chosen"]]
    yield from _cells(cells[:MOST_CELLS], axes, tuned, columns)
    if len(cells) < len(record["cells"]):
        yield from _lines("The cells that were not chosen are on the page.", "", columns)
    if len(cells) > MOST_CELLS:
        yield from _lines(f"{len(cells) - MOST_CELLS:,} more cells are on the page.", "", columns)


def _verdict(claim: Record, columns: int) -> Iterator[Text]:
    symbol = words.SYMBOLS[claim["outcome"]]
    yield from _lines(f"{outcome(claim)}: {claim['says']}", f"{symbol} ", columns)
    effect = claim["effect"]
    if effect is not None:
        told = words.effect(effect, claim["unit"])
        told += f", p = {words.p_value(effect['p_adjusted'])}".replace("= <", "<")
        if claim["superiority"] is not None:
            told += f", P(A > B) = {words.number(claim['superiority'], digits=2)}"
        yield from _lines(told + words.also(claim), "    ", columns)
    if said := words.over_images(claim):
        yield from _lines(said, "    ", columns)
    for said in filter(None, map(words.two_groups, claim["better"] + claim["worse"])):
        yield from _lines(said, "    ", columns)
    for remark in claim["remarks"]:
        yield from _lines(remark, "    but: ", columns)
    if claim["reasons"]:
        yield from _lines("; ".join(claim["reasons"]), "    why: ", columns)


def closing_tables(study: Study, *, columns: int = 80) -> list[RenderableType]:
    """What ends a sweep, to be printed one below the other: the question, what was compared, the
    results, and remarks on what diverged and on eval mode; no wider than `columns`."""
    from bnbench.report.record import cell_row  # SciPy takes a while
    from bnbench.report.remarks import LARGE, eval_mode, short_warmups

    shown: list[RenderableType] = []
    if study.experiment.question:
        shown.append(Text(study.experiment.question))
    if len(study.setups) > 1:
        shown.append(_setups_table(study.runs))
    rows = [cell_row(cell, study) for cell in study.cells]
    tuned = study.tuned_axis if study.choices else None
    shown += _cells(rows, study.varying, tuned, columns)
    for remark in (*short_warmups(study), *eval_mode(study, LARGE)):
        shown += _lines(remark, "", columns)
    return shown


def closing_verdicts(study: Study, *, columns: int = 80) -> Iterator[Text]:
    """What follows them where there are claims: a line for each, or how many seeds are missing."""
    from bnbench.report.looks import judged
    from bnbench.report.record import claim_row
    from bnbench.report.remarks import further
    from bnbench.stats.verdict import seeds_to_support

    claims, seeds = study.experiment.claims, study.experiment.seeds
    needed = seeds_to_support([claim.direction for claim in claims]) if claims else 0
    if (lacking := needed - len(seeds)) > 0:
        do = f"the same command with --seeds {needed}"
        do = do if isinstance(seeds, range) else f"add {lacking} to seeds: in the file"
        told = f"no verdicts yet: {counted(len(claims), 'claim')} and {counted(len(seeds), 'seed')}"
        yield from _lines(f"{told}; {needed} are needed: {do}", "", columns)
        return
    aims = {claim.id for claim in study.experiment.aims or claims}
    found = [claim_row(each) for each in judged(study) if each.claim.id in aims]
    for claim in found:
        said, effect = outcome(claim), claim["effect"]
        if effect is not None:
            said += f", {words.middle(effect, claim['unit']).removeprefix('mean ')}"
            ends = words.interval(effect["interval"], claim["unit"])
            said += f" [{ends}]" * (ends != "–") + f", {counted(effect['n'], 'seed')}"
        said += words.also(claim)
        yield from _lines(f"{claim['id']}: {said}", f"{words.SYMBOLS[claim['outcome']]} ", columns)
    for remark in further(study, found):
        yield from _lines(remark, "", columns)


def outcome(claim: Record) -> str:
    """`inconclusive (leans towards yes)`."""
    leaning = f" ({words.LEANINGS[claim['leaning']]})" if claim["leaning"] else ""
    return f"{claim['outcome']}{words.limited(claim)}{leaning}"


def _new_table(first: str, *rest: str, padding: int = 1) -> Table:
    """A table without lines: a column of names, and columns of numbers; between two of them
    `padding` spaces and one more."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, padding, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in rest:
        width = max(map(cell_len, heading.split("\n")))
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    return table


def cells_in_words(
    cells: Sequence[Record], axes: Sequence[str], tuned: str | None, *, speed: bool = True
) -> list[list[str]]:
    """Headings, and a line for each row of `record.cell_row`; those that tuning chose have a star.

    The terminal and the tables of papers say the same words. `speed`: with a column of it.
    """
    rates = ["img/s"] * speed
    lines = [["setup", *words.short_names(axes).values(), "test %", words.GAP, *rates, "seeds"]]
    for cell in cells:
        metrics = cell["metrics"]
        rate = metrics["images_per_second"]
        star = "*" if cell["chosen"] and cell["point"].get(tuned) is not None else ""
        lines.append(
            [
                cell["setup"] + star,
                *(words.value_words(cell["point"].get(axis)) for axis in axes),
                words.test_accuracy(metrics),
                words.over_seeds(metrics["gap"], sign=True),
                *["–" if rate is None else f"{rate['mean']:,.0f}"] * speed,
                words.seeds(cell),
            ]
        )
    return lines


def _cells(
    cells: Sequence[Record], axes: Sequence[str], tuned: str | None, columns: int
) -> Iterator[RenderableType]:
    """The same as a table. Where a row does not fit, it is without its speed, or its values are
    below its name. Then what the columns mean."""
    lines = cells_in_words(cells, axes, tuned)
    without = cells_in_words(cells, axes, tuned, speed=False)
    table = _table_of(lines, columns) or _table_of(without, columns)
    if table is not None:
        yield table
    else:
        yield Text("")
        for setup, *values in lines[1:]:
            yield from _lines(setup, "", columns)
            said = (f"{name} {value}" for name, value in zip(lines[0][1:], values, strict=True))
            yield from _lines("; ".join(said), "  ", columns)
        yield Text("")
    yield from _lines(_what_they_mean(cells, tuned), "", columns)


def _table_of(lines: Sequence[Sequence[str]], columns: int) -> Table | None:
    """Headings and rows as a table; None where it would be wider."""
    headings, *rows = [[_stacked(text) for text in line] for line in lines]
    widths = [
        max(cell_len(line) for text in column for line in text.split("\n"))
        for column in zip(headings, *rows, strict=True)
    ]
    free = columns - sum(widths[1:]) - min(widths[0], NARROWEST_NAME) - 2  # at the edges
    between = len(widths) - 1
    if free < between:
        return None
    table = _new_table(*headings, padding=int(free >= 2 * between))
    for row in rows:
        table.add_row(*row)
    return table


def _stacked(text: str) -> str:
    text = text.replace(words.GAP, words.GAP.replace("mode ", "mode\n"))
    text = re.sub(r" (?=\(\d+ at chance)| \+ ", "\n", text)
    return text.replace(words.ARROW, "\n→ ")


def _what_they_mean(cells: Sequence[Record], tuned: str | None) -> str:
    """A footnote."""
    completed = {cell["completed"] for cell in cells}
    shown = [
        "each seed, where there are one or two" * bool(completed & {1, 2}),
        "mean [95 % interval] over seeds" * (max(completed, default=0) > 2),
    ]
    said = f"test %: accuracy with running statistics; {', '.join(filter(None, shown))}."
    if any(words.has_arrow(cell["metrics"]) for cell in cells):
        said += f" {words.ARROW_MEANS}"
    said += f" {words.GAP_MEANS}"
    if any(cell["at_chance"] for cell in cells):
        said += f" {words.AT_CHANCE}"
    if tuned is not None:
        said += f" *: {tuned} chosen on validation."
    if any(cell["given_up"] for cell in cells):
        said += f" {words.GIVEN_UP}"
    return said


def _setups_table(runs: Iterable[StudiedRun]) -> Table:
    """The size of each setup, side by side: whether they are fair opponents. One whose size changes
    along an axis has several lines."""
    table = _new_table("setup", "parameters", "trained", "normalization layers")
    keys = ("parameters", "trainable_parameters", "normalization_layers")
    ended = [run for run in runs if run.result is not None]
    rows = [(run.setup, *(f"{run.manifest.get(key, 0):,}" for key in keys))
            for run in ended if run.manifest]  # fmt: skip
    for row in dict.fromkeys(rows):
        table.add_row(*row)
    return table
