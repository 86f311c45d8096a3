"""The report's tables and its methods paragraph for a paper: LaTeX, Markdown, CSV.

All of it is the record's; the words of numbers are those of the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import NamedTuple

from bnbench import __version__
from bnbench.report import words
from bnbench.report.methods import IMAGES, judging, smallest
from bnbench.report.record import as_csv
from bnbench.report.study import METRICS
from bnbench.report.terminal import cells_in_words, outcome
from bnbench.store import Record
from bnbench.wording import RAISED, key_words, printable, slug


class PaperTable(NamedTuple):
    """A table in words. `columns`: for LaTeX and for Markdown, where each column stands."""

    name: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    columns: Sequence[str]


def as_latex(record: Record) -> str:
    """A table of the cells that tuning chose, and one of the claims with their verdicts."""
    return latex(*_tables(record))


def as_markdown(record: Record) -> str:
    """The same, for GitHub."""
    return markdown(*_tables(record))


def as_flat_csv(record: Record) -> str:
    """A row for each cell, chosen or not, with the verdicts of the claims that count it."""
    return as_csv([_flat(cell) for cell in record["cells"]])


def _tables(record: Record) -> Iterator[PaperTable]:
    experiment, cells = record["experiment"], record["cells"]
    axes = experiment["varying"]
    if record["tuned"]:
        cells = [cell for cell in cells if cell["chosen"]]
    # A speed is of a machine, and no result: the CSV has it.
    headings, *rows = cells_in_words(cells, axes, None, speed=False)
    norms = _telling(cells)
    yield PaperTable(
        experiment["name"],
        record["caption"],
        [headings[0], *norms, *map(key_words, axes), *headings[1 + len(axes) :]],
        [[row[0], *norm, *row[1:]] for row, *norm in zip(rows, *norms.values(), strict=True)],
        ["l"] * (1 + len(norms)) + ["r"] * (len(headings) - 1),
    )
    if record["claims"]:
        name = f"{experiment['name']}-claims"
        yield claims_table(name, record["claims"], experiment["looks"])


def _telling(cells: Sequence[Record]) -> dict[str, list[str]]:
    """Columns on the normalization: its name, where a setup's own does not hold it, and its
    placement, where there are two."""
    columns = {
        key: [words.value_words(cell["norm"][key]) for cell in cells]
        for key in ("name", "placement")
    }
    named = zip(columns["name"], cells, strict=True)
    shown = {"norm": columns["name"]}
    if all(_letters(name) in _letters(cell["setup"]) for name, cell in named):
        shown = {}
    if {"before", "after"} <= set(columns["placement"]):
        shown["placement"] = columns["placement"]
    return shown


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def claims_table(name: str, claims: Sequence[Record], looks: Sequence[int] = ()) -> PaperTable:
    """Claims of a record with their verdicts. `looks`: numbers of seeds at which they were judged,
    where these were several."""
    least = smallest([(claim["smallest_effect"], claim["unit"]) for claim in claims])
    said = f"Claims and verdicts; + favours the claim. {judging(claims, looks)} {least}"
    return PaperTable(
        name,
        said + f" {IMAGES}" * any(words.intervals(claim)[1] for claim in claims),
        ["claim", "verdict", "effect", "interval", "seeds", "p"],
        [_verdict(claim) for claim in claims],
        [r"p{0.26\linewidth}", "l", r"p{0.18\linewidth}", *["r"] * 3],
    )


def _verdict(claim: Record) -> list[str]:
    """A row; an interval over seeds and images that differs in words is in parentheses."""
    row = [claim["says"], outcome(claim)]
    effect = claim["effect"]
    if effect is None:
        return [*row, "–", "–", "0", "–"]
    alone, over = words.intervals(claim)
    return [
        *row,
        words.middle(effect, claim["unit"]).removeprefix("mean ") + words.also(claim),
        alone + f" ({over})" * bool(over),
        str(effect["n"]),
        words.p_value(effect["p_adjusted"]),
    ]


def _flat(cell: Record) -> Record:
    """A row of the CSV: fractions, as in report.json."""
    row = {"setup": cell["setup"]} | {f"norm.{key}": value for key, value in cell["norm"].items()}
    counts = ("chosen", "seeds", "completed", "at_chance", "diverged", "failed", "missing")
    row |= cell["point"] | {key: cell[key] for key in counts}
    for name in METRICS:
        metric = cell["metrics"][name] or {"mean": None, "interval": None}
        low, high = metric["interval"] or (None, None)
        row |= {name: metric["mean"], f"{name}/low": low, f"{name}/high": high}
    said = (f"{claim}: {outcome}" for claim, outcome in cell["verdicts"].items())
    return row | {"verdict": "; ".join(said)}


# --- LaTeX and Markdown -------------------------------------------------------------------

_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "ε": "epsilon", "η": "eta", "λ": "lambda",
          "μ": "mu", "σ": "sigma"}  # fmt: skip
LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "{}$&#%_"},
    **{"^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': r"{\char34}", "`": r"{\char96}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{char: f"{{{char}}}" for char in "[]*"},  # after \\ they would be its arguments
    **{"±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$"},
    **{"−": "$-$", "∞": r"$\infty$", "≈": r"$\approx$", "→": r"$\to$", "…": r"\ldots{}"},
    **{chr(sign): f"$^{{{chr(plain)}}}$" for plain, sign in RAISED.items()},
    **{"–": r"\textendash{}", "’": r"\textquoteright{}"},
    **{letter: f"$\\{name}$" for letter, name in _GREEK.items()},
}
"""What LaTeX obeys, and signs that pdfTeX's fonts lack. Other letters are left: which ones there
are depends on the engine and the font."""
JOINED = re.compile(r"([-',])(?=\1)")
"""What fonts make one sign of: -- is a dash."""
SECOND = re.compile(r" (?=[→(].*\d|better by)")
"""Where a second line begins: population statistics, an interval over images, half a heading."""
MARKDOWN: Mapping[str, str] = {char: f"\\{char}" for char in "\\`*_{}[]<>#|~&$!"}
"""https://spec.commonmark.org/0.31.2/#backslash-escapes; | and ~ are of GitHub's tables and
strikethrough, $ of its formulas."""


def latex_text(text: str) -> str:
    """The text in one line, to be typeset as it is."""
    return JOINED.sub(r"\1{}", "".join(LATEX.get(char, char) for char in _one_line(text)))


def markdown_text(text: str) -> str:
    """The text in one line, to be shown as it is."""
    return "".join(MARKDOWN.get(char, char) for char in _one_line(text))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def latex(*tables: PaperTable) -> str:
    """Tables, after what they need."""
    needs = f"% bnbench {__version__}: needs \\usepackage{{booktabs,graphicx}}\n"
    return needs + "\n".join(map(_latex, tables))


def markdown(*tables: PaperTable) -> str:
    """Tables, for GitHub."""
    return "\n".join(map(_markdown, tables))


def _latex(table: PaperTable) -> str:
    """In two columns over both of them; a table that is wider all the same is made smaller."""

    def cell(text: str, at: str) -> str:
        if at[0] == "p":  # its words are not spread over its width
            return rf"\raggedright {latex_text(text)}"
        lines = SECOND.split(text) if at == "r" else [text]
        stacked = r" \\ ".join(map(latex_text, lines))
        if len(lines) == 1:
            return stacked
        return rf"\begin{{tabular}}[t]{{@{{}}{at}@{{}}}}{stacked}\end{{tabular}}"

    def line(row: Sequence[str]) -> str:
        return f"    {' & '.join(starmap(cell, zip(row, table.columns, strict=True)))} \\\\"

    columns = "".join(table.columns)
    heading, *rows = map(line, (table.headings, *table.rows))
    return "\n".join(
        [
            r"\begin{table*}[!tb]",  # with p, alone on a page that they leave half empty
            r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"  \caption{{{latex_text(table.caption)}}}",
            rf"  \label{{tab:{slug(table.name)}}}\smallskip",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{{columns}}}",
            *(r"    \toprule", heading, r"    \midrule", *rows, r"    \bottomrule"),
            r"  \end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def _markdown(table: PaperTable) -> str:
    def line(row: Sequence[str], written: Callable[[str], str] = markdown_text) -> str:
        return f"| {' | '.join(map(written, row))} |"

    rule = line(["--:" if column == "r" else ":--" for column in table.columns], str)
    lines = [line(table.headings), rule, *map(line, table.rows)]
    return "\n".join([*lines, "", markdown_text(table.caption), ""])


FORMS: Mapping[str, Callable[[Record], str]] = {
    "latex": as_latex,
    "markdown": as_markdown,
    "csv": as_flat_csv,
}
TABLES: Mapping[str, Callable[[PaperTable], str]] = {"latex": latex, "markdown": markdown}
PARAGRAPHS: Mapping[str, Callable[[str], str]] = {"latex": latex_text, "markdown": markdown_text}
