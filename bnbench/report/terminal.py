"""The report in 80 columns: question, answer, table, verdicts, where the files are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bnbench.config import in_words
from bnbench.report import words
from bnbench.report.study import short_names
from bnbench.store import Record

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
        yield from _verdicts(record, columns)
        yield Text("")
    folder = experiment["path"]
    yield Text(f"page:    {folder}/report.html", overflow="fold")
    yield Text(f"data:    {folder}/report.json, report.csv, figures/", overflow="fold")


def _first_words(record: Record) -> list[str]:
    """The answer; of claims, whose verdicts follow below, only how many came out how."""
    if not record["claims"]:
        return list(record["answer"])
    outcomes = Counter(claim["outcome"] for claim in record["claims"])
    counted = ", ".join(f"{outcomes[each]} {each}" for each in words.SYMBOLS if outcomes[each])
    return [f"{words.plural(len(record['claims']), 'claim')}: {counted}."]


def _lines(text: str, prefix: str, columns: int) -> Iterator[Text]:
    for number, line in enumerate(wrap(text, columns - len(prefix)) or [""]):
        yield Text((prefix if number == 0 else " " * len(prefix)) + line)


def _cells_table(record: Record) -> Table:
    axes = [key for key, values in record["experiment"]["axes"].items() if len(values) > 1]
    cells = record["cells"]
    tuned = bool(record["tuned"])
    if tuned and len(cells) > MOST_CELLS:
        cells = [cell for cell in cells if cell["chosen"]]
    left_out = len(cells) - MOST_CELLS
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setup", overflow="ellipsis", no_wrap=True)
    for heading in (*short_names(axes).values(), "test %", "gap", "img/s", "seeds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in cells[:MOST_CELLS]:
        metrics = cell["metrics"]
        speed = metrics["images_per_second"]
        table.add_row(
            escape(cell["setup"]) + ("*" if cell["chosen"] and tuned else ""),
            *(escape(_value(cell["point"].get(axis))) for axis in axes),
            _percent(metrics["test_accuracy"]),
            _percent(metrics["gap"], sign=True),
            "–" if speed is None else f"{speed['mean']:,.0f}",
            _seeds(cell),
        )
    said = "test accuracy and gap (running − batch, val): mean ± 95 % interval over seeds"
    if tuned:
        said += f"\n*: {record['experiment']['tune']['axis']} chosen on validation"
    if len(cells) < len(record["cells"]):
        said += "; the others are on the page"
    if left_out > 0:
        said += f"\n{left_out:,} more cells are on the page"
    table.caption = Text(said)
    table.caption_justify = "left"
    return table


def _value(value: object) -> str:
    if value is None:
        return "–"
    return in_words(tuple(value) if isinstance(value, list) else value)


def _percent(metric: Record | None, *, sign: bool = False) -> str:
    if metric is None:
        return "–"
    middle = words.percent(metric["mean"], sign=sign)
    if metric["interval"] is None:
        return middle
    low, high = metric["interval"]
    return f"{middle} ± {words.percent((high - low) / 2)}"


def _seeds(cell: Record) -> str:
    parts = [str(cell["completed"])] if cell["completed"] else []
    parts += [
        f"{cell[state]} {state}" for state in ("diverged", "failed", "missing") if cell[state]
    ]
    return " + ".join(parts)


def _verdicts(record: Record, columns: int) -> Iterator[Text]:
    for claim in record["claims"]:
        symbol = words.SYMBOLS[claim["outcome"]]
        leaning = f" (indicative: {claim['leaning']})" if claim["leaning"] else ""
        yield from _lines(f"{claim['outcome']}{leaning}: {claim['says']}", f"{symbol} ", columns)
        effect = claim["effect"]
        if effect is not None:
            middle = effect["median"] if effect["mean"] is None else effect["mean"]
            of_what = "median" if effect["mean"] is None else "mean"
            ends = tuple(map(float, effect["interval"]))
            size = f"{of_what} {words.difference(float(middle), claim['unit'])}"
            sure = f"[{words.interval((ends[0], ends[1]), claim['unit'])}]" * (effect["n"] > 1)
            adjusted = words.p_value(effect["p_adjusted"])
            told = f"{size} {sure}, n = {effect['n']}, p = {adjusted}".replace("= <", "<")
            if claim["superiority"] is not None:
                told += f", P(A > B) = {words.number(claim['superiority'], digits=2)}"
            yield from _lines(told, "    ", columns)
        if claim["reasons"]:
            yield from _lines("; ".join(claim["reasons"]), "    why: ", columns)
