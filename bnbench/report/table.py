"""Tables of results that others have written, as exports of loggers and spreadsheets have them: CSV
with commas, semicolons, tabs or bars, JSON lines, or a JSON list of objects; UTF-8 or UTF-16.

Every value is text until a column of numbers is wanted: a table may have thousands of columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnbench import regular
from bnbench.errors import DataError, UsageError
from bnbench.report.record import FORMULA
from bnbench.wording import cut, did_you_mean, flat, nearest, shortened

LIMIT = 2**26
"""Bytes of a table: as text in memory it takes ten times as many."""
SILENT = 60.0
"""Seconds that a pipe may be silent."""
DELIMITERS = ",;\t|"
ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"PAR1")
"""How workbooks of Excel (both kinds), gzip and Parquet begin."""
NO_VALUE = frozenset(["", "-", "–", "na", "n/a", "#n/a", "nan", "null", "none"])
"""What stands where there is no value, in small letters."""
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?(inf|infinity|∞)")
DECIMAL_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+(e[-+]?[0-9]+)?")
THOUSANDS = re.compile(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+")


class Row(NamedTuple):
    """A line of the table, in the order of its columns; `line`: where it ends in the file."""

    line: int
    values: Sequence[str]


class Notation(NamedTuple):
    """How a column writes its numbers."""

    comma: bool
    percent: bool


@dataclass(frozen=True, slots=True)
class Table:
    """`name`: the file as it was typed. `delimiter`: "" of JSON."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Row]
    delimiter: str

    def find(self, name: str) -> int | None:
        """Which column has this name, or alone ends with it after a dot or a slash, as `seed` is
        `params.seed`, or is it but for capitals. Raises UsageError where there are several."""
        ends = [re.split(r"[./]", each)[-1] for each in self.columns]
        for names, wanted in (
            (self.columns, name),
            (ends, name),
            ([each.casefold() for each in ends], name.casefold()),
        ):
            found = [at for at, each in enumerate(names) if each == wanted]
            if len(found) > 1:
                named = cut([shortened(self.columns[at]) for at in found])
                raise UsageError(
                    f"{self.name} has {len(found)} columns of the name {shortened(name)}: {named}",
                    do="write the whole name; of two that are the same, rename one",
                )
            if found:
                return found[0]
        return None

    def column(self, name: str, option: str) -> int:
        """The same. Raises UsageError where there is none, with the nearest."""
        found = self.find(name)
        if found is None:
            close = did_you_mean(nearest(name, self.columns), f"{option} ")
            numbered = rf"{re.escape(name)}[ _=.-]*[0-9]+"
            each = [it for it in self.columns if re.fullmatch(numbered, it, re.IGNORECASE)]
            if len(each) > 1:
                close = (
                    f"it has a column for each ({cut(each)}): transpose it, so that a row is a "
                    f"{name} and a column a setup"
                )
            if {"setup", "seeds", "completed"} <= {*self.columns}:
                close = (
                    "its rows are means over seeds: the experiment's report.csv has a row for each "
                    "run"
                )
            raise UsageError(
                f"{self.name} has no column {shortened(name)}",
                do=close or f"{option} names one of {cut(list(map(shortened, self.columns)))}",
            )
        return found

    def texts(self, column: int) -> Iterator[str]:
        """What a column has in every row."""
        return (row.values[column] for row in self.rows)

    def notation(self, column: int) -> Notation:
        """How a column writes its numbers. Raises UsageError where that could mean two things."""
        texts = [
            text
            for text in map(_plain, self.texts(column))
            if text not in NO_VALUE and any(map(str.isdigit, text))
        ]
        numbers = [text.removesuffix("%").rstrip() for text in texts]
        commas = [text for text in numbers if DECIMAL_COMMA.fullmatch(text)]
        points = [text for text in numbers if "." in text]
        thousands = self.delimiter in ("", ",") and all(map(THOUSANDS.fullmatch, commas))
        if commas and (points or thousands):
            also = f" and {points[0]}" if points else ", which may mean thousands"
            raise UsageError(
                f"{self.name}: {self.columns[column]} has {commas[0]}{also}",
                do="write its numbers with decimal points, and nothing between thousands",
            )
        return Notation(bool(commas), bool(texts) and all(text.endswith("%") for text in texts))


def number(text: str, notation: Notation) -> float:
    """A number of a column; of percentages without the sign. Raises ValueError that says why not:
    there may be no value at all."""
    plain = _plain(text)
    if plain in NO_VALUE:
        raise ValueError("NaN" if plain == "nan" else plain or "empty")
    digits = plain.removesuffix("%").rstrip() if notation.percent else plain
    digits = digits.replace(",", ".", 1) if notation.comma else digits
    if not NUMBER.fullmatch(digits):
        raise ValueError(f"{shortened(text)} is no number")
    return float(digits.replace("∞", "inf"))


def is_number(text: str, notation: Notation) -> bool:
    """Whether `number` reads it."""
    try:
        number(text, notation)
    except ValueError:
        return False
    return True


def _plain(text: str) -> str:
    return text.strip().lower().replace("−", "-")


def read(path: str) -> Table:
    """The table of a file, or of a pipe. Raises DataError, with the line where one is at fault."""
    found = _read(path)
    if not found.rows:
        raise DataError(f"{path} has a heading and no rows", do="a row for each run is wanted")
    return found


def _read(path: str) -> Table:
    try:
        content = regular.read_piped(path, LIMIT, SILENT)
    except OSError as error:
        do = "name a CSV file or one of JSON lines; leave out columns of one that is too large"
        raise DataError(f"{path} cannot be read: {error.strerror or error}", do=do) from None
    text = _decoded(content, path)
    if not text.strip():
        raise DataError(f"{path} is empty", do="a heading and a row for each run are wanted")
    if text.lstrip()[0] in "{[":
        return _of_objects(list(_objects(text, path)), path)
    return _of_lines(text, path)


def _decoded(content: bytes, path: str) -> str:
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # of an older Excel
    if content.startswith(ARCHIVES) or "\0" in text:
        raise DataError(f"{path} is no text", do="save or export the table as CSV")
    return text


# --- CSV ----------------------------------------------------------------------------------


def _of_lines(text: str, path: str) -> Table:
    first, _, rest = text.partition("\n")
    told = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own first line
    delimiter = told[1] if told else _delimiter(text.lstrip("\r\n"))
    csv.field_size_limit(LIMIT)  # a histogram in one cell is longer than csv's 128 KiB
    reader = csv.reader(io.StringIO(rest if told else text, newline=""), delimiter=delimiter)
    before = int(bool(told))
    try:
        columns = next((line for line in reader if any(line)), [])
        columns, heading = [each.strip() for each in columns], reader.line_num + before
        rows = [Row(reader.line_num + before, [_typed(each) for each in line])
                for line in reader if any(map(str.strip, line))]  # fmt: skip
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + before}: {error}") from None
    if sum(map(bool, columns)) < 2 <= len(columns):
        many = f"names 1 of {len(columns)} columns"
        do = "remove what stands above the names of the columns"
        raise DataError(f"{path}:{heading}: the heading {many}", do=do)
    for row in rows:
        if len(row.values) != len(columns):
            many = f"{len(row.values)} values, and the heading {len(columns)}"
            do = "a comma in a value, as in 0,83, needs quotes around it"
            raise DataError(f"{path}:{row.line}: the row has {many}", do=do)
    return Table(path, columns, rows, delimiter)


def _delimiter(text: str) -> str:
    """The one that makes the longest heading."""

    def headings(delimiter: str) -> int:
        try:
            return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=headings)


def _typed(text: str) -> str:
    """Without the apostrophe that `record.as_csv` puts before what looks like a formula."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA) else text


# --- JSON ---------------------------------------------------------------------------------


def _objects(text: str, path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each object with its line; of a list with its number."""
    if text.lstrip()[0] == "[":
        listed: Iterable[tuple[int, str | None]] = [(1, text)]
    else:
        listed = enumerate(text.splitlines(), start=1)
    for line, said in listed:
        if not said or not said.strip():
            continue
        try:
            value = json.loads(said)
        except (ValueError, RecursionError):
            value = None
        values = value if isinstance(value, list) else [value]
        for each in values:
            if not isinstance(each, dict):
                raise DataError(f"{path}:{line}: this is no JSON object", do="a run a line: {…}")
        yield from enumerate(values, start=line)


def _of_objects(objects: Sequence[tuple[int, Mapping[str, Any]]], path: str) -> Table:
    found = [  # lists are no values
        (line, {key: value for key, value in flat(each, ".") if not isinstance(value, list)})
        for line, each in objects
    ]
    columns = list(dict.fromkeys(key for _, each in found for key in each))
    if found and not columns:
        raise DataError(f"{path} has no values but lists", do="give an object for each run")
    rows = [Row(line, [_text(each.get(key)) for key in columns]) for line, each in found]
    return Table(path, columns, rows, "")


def _text(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "" if value is None else text
