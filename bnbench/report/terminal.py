"""The report in 80 columns: question, answer, table, verdicts, where the files are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from textwrap import wrap

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnbench.report import tables, words
from bnbench.store import Record
from bnbench.wording import counted

MOST_CELLS = 40
COLUMNS = 80


def terminal(record: Record, *, columns: int = COLUMNS) -> Iterator[RenderableType]:
    """What to print, one below the other, no wider than `columns`."""
    experiment = record["experiment"]
    yield Text(experiment["question"] or experiment["name"], style="bold")
    for notice in record["notices"]:
        yield from _lines(notice["text"], "! " if notice["kind"] != "other" else "  ", columns)
    yield Text("")
    for sentence in _first_words(record):
        yield from _lines(sentence, "", columns)
    yield _cells_table(record)
    if record["claims"]:
        for claim in record["claims"]:
            yield from _verdict(claim, columns)
        yield Text("")
    folder = experiment["path"]
    yield Text(f"page:    {folder}/report.html", overflow="fold")
    yield Text(f"data:    {folder}/report.json, report.csv, figures/", overflow="fold")


def _first_words(record: Record) -> list[str]:
    """The answer; with claims, whose verdicts follow below, only the number of each outcome."""
    if not record["claims"]:
        return list(record["answer"])
    outcomes = Counter(claim["outcome"] for claim in record["claims"])
    numbers = ", ".join(f"{outcomes[each]} {each}" for each in words.SYMBOLS if outcomes[each])
    return [f"{counted(len(record['claims']), 'claim')}: {numbers}."]


def _lines(text: str, prefix: str, columns: int) -> Iterator[Text]:
    for number, line in enumerate(wrap(text, columns - len(prefix)) or [""]):
        yield Text((prefix if number == 0 else " " * len(prefix)) + line)


def _cells_table(record: Record) -> Table:
    axes = [key for key, values in record["experiment"]["axes"].items() if len(values) > 1]
    cells = record["cells"]
    tuned = record["experiment"]["tune"]["axis"] if record["tuned"] else None
    if tuned is not None and len(cells) > MOST_CELLS:
        cells = [cell for cell in cells if cell["chosen"]]
    table = tables.cells_table(cells[:MOST_CELLS], axes, tuned, ("test_accuracy",))
    said = "test accuracy and gap (running − batch, val): mean ± 95 % interval over seeds"
    if tuned is not None:
        said += f"\n*: {tuned} chosen on validation"
    if len(cells) < len(record["cells"]):
        said += "; the others are on the page"
    if len(cells) > MOST_CELLS:
        said += f"\n{len(cells) - MOST_CELLS:,} more cells are on the page"
    table.caption = Text(said)
    return table


def _verdict(claim: Record, columns: int) -> Iterator[Text]:
    symbol = words.SYMBOLS[claim["outcome"]]
    leaning = f" (indicative: {claim['leaning']})" if claim["leaning"] else ""
    yield from _lines(f"{claim['outcome']}{leaning}: {claim['says']}", f"{symbol} ", columns)
    effect = claim["effect"]
    if effect is not None:
        of_what = "median" if effect["mean"] is None else "mean"
        size = f"{of_what} {words.difference(float(effect[of_what]), claim['unit'])}"
        sure = f"[{words.interval(effect['interval'], claim['unit'])}]" * (effect["n"] > 1)
        adjusted = words.p_value(effect["p_adjusted"])
        told = f"{size} {sure}, n = {effect['n']}, p = {adjusted}".replace("= <", "<")
        if claim["superiority"] is not None:
            told += f", P(A > B) = {words.number(claim['superiority'], digits=2)}"
        yield from _lines(told, "    ", columns)
    if claim["reasons"]:
        yield from _lines("; ".join(claim["reasons"]), "    why: ", columns)
