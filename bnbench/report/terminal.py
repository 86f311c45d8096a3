"""What the terminal shows, at most 80 columns wide: the report, and what ends a run or a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bnbench.report import words
from bnbench.report.study import StudiedRun, Study, short_names
from bnbench.store import Record
from bnbench.wording import counted

MOST_CELLS = 40


def terminal(record: Record, *, columns: int = 80) -> Iterator[RenderableType]:
    """The report: question, answer, table, verdicts, where the files are; what to print, one below
    the other, no wider than `columns`."""
    experiment, claims = record["experiment"], record["claims"]
    yield Text(experiment["question"] or experiment["name"], style="bold")
    for notice in record["notices"]:
        yield from _lines(notice["text"], "! " if notice["kind"] != "other" else "  ", columns)
    yield Text("")
    answer = record["answer"]
    if claims:  # their verdicts follow below
        outcomes = Counter(claim["outcome"] for claim in claims)
        numbers = ", ".join(f"{outcomes[each]} {each}" for each in words.SYMBOLS if outcomes[each])
        answer = [f"{counted(len(claims), 'claim')}: {numbers}."]
    for sentence in answer:
        yield from _lines(sentence, "", columns)
    yield _table_of_report(record)
    for claim in claims:
        yield from _verdict(claim, columns)
    if claims:
        yield Text("")
    folder = experiment["path"]
    yield Text(f"page:    {folder}/report.html", overflow="fold")
    yield Text(f"data:    {folder}/report.json, report.csv, figures/", overflow="fold")


def _lines(text: str, prefix: str, columns: int) -> Iterator[Text]:
    for number, line in enumerate(wrap(text, columns - len(prefix)) or [""]):
        yield Text((prefix if number == 0 else " " * len(prefix)) + line)


def _table_of_report(record: Record) -> Table:
    axes = [key for key, values in record["experiment"]["axes"].items() if len(values) > 1]
    cells = record["cells"]
    tuned = record["experiment"]["tune"]["axis"] if record["tuned"] else None
    if tuned is not None and len(cells) > MOST_CELLS:
        cells = [cell for cell in cells if cell["chosen"]]
    said = "test accuracy and gap (running − batch, val): mean ± 95 % interval over seeds"
    if tuned is not None:
        said += f"\n*: {tuned} chosen on validation"
    if len(cells) < len(record["cells"]):
        said += "; the others are on the page"
    if len(cells) > MOST_CELLS:
        said += f"\n{len(cells) - MOST_CELLS:,} more cells are on the page"
    return _cells_table(cells[:MOST_CELLS], axes, tuned, ("test_accuracy",), said)


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


def closing_tables(study: Study) -> list[RenderableType]:
    """What ends a sweep, to be printed one below the other: the question, what was compared, the
    results."""
    from bnbench.report.record import cell_row  # SciPy takes a while

    shown: list[RenderableType] = []
    if study.experiment.question:
        shown.append(Text(study.experiment.question))
    if len(study.setups) > 1:
        shown.append(_setups_table(study.runs))
    rows = [cell_row(cell, study) for cell in study.cells]
    said = "accuracy with running statistics; gap: running − batch statistics (val)"
    if any(row["completed"] > 1 for row in rows):
        said += "; ±: 95 % interval"
    tuned = study.tuned_axis if study.choices else None
    if tuned is not None:
        said += f"\n*: {tuned} chosen on validation"
    accuracies = ("val_accuracy", "test_accuracy")
    return [*shown, _cells_table(rows, list(study.axes), tuned, accuracies, said)]


def _new_table(first: str, *rest: str) -> Table:
    """A table without lines: a column of names, and columns of numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for heading in rest:
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    return table


def cells_in_words(
    cells: Sequence[Record], axes: Sequence[str], tuned: str | None, accuracies: Sequence[str]
) -> list[list[str]]:
    """Headings, and a line for each row of `record.cell_row`; those that tuning chose have a star.

    The terminal and the tables of papers say the same words.
    """
    headings = [f"{name.removesuffix('_accuracy')} %" for name in accuracies]
    lines = [["setup", *short_names(axes).values(), *headings, "gap", "img/s", "seeds"]]
    for cell in cells:
        metrics = cell["metrics"]
        speed = metrics["images_per_second"]
        star = "*" if cell["chosen"] and cell["point"].get(tuned) is not None else ""
        seeds = [str(cell["completed"])] if cell["completed"] else []
        states = ("diverged", "failed", "missing")
        seeds += [f"{cell[state]} {state}" for state in states if cell[state]]
        lines.append(
            [
                cell["setup"] + star,
                *(words.value_words(cell["point"].get(axis)) for axis in axes),
                *(_percent(metrics[name]) for name in accuracies),
                _percent(metrics["gap"], sign=True),
                "–" if speed is None else f"{speed['mean']:,.0f}",
                " + ".join(seeds),
            ]
        )
    return lines


def _cells_table(
    cells: Sequence[Record],
    axes: Sequence[str],
    tuned: str | None,
    accuracies: Sequence[str],
    caption: str,
) -> Table:
    (first, *rest), *rows = cells_in_words(cells, axes, tuned, accuracies)
    table = _new_table(first, *rest)
    for row in rows:
        table.add_row(*row)
    table.caption, table.caption_justify = caption, "left"
    return table


def _percent(metric: Record | None, *, sign: bool = False) -> str:
    if metric is None:
        return "–"
    middle = words.percent(metric["mean"], sign=sign)
    if metric["interval"] is None:
        return middle
    low, high = metric["interval"]
    return f"{middle} ± {words.percent((high - low) / 2)}"


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
