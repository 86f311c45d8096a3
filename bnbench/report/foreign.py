"""Claims about a table of results that others have written, judged as those of a study are.

A table is long, with a row for each run and columns for its setup, its seed and its metrics, or
wide, with a row for each seed and a column for each setup. Nothing is left out in silence: what has
no partner, no value, or several rows is an objection, and a claim with one is not decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf, log2

from bnbench import __version__
from bnbench.config import claims, experiments, identity, metrics, yaml
from bnbench.config.faults import Faults, Place
from bnbench.config.layers import Layer
from bnbench.errors import UsageError
from bnbench.report import columns, record
from bnbench.report.answer import of_claims
from bnbench.report.figures import drawn_claims
from bnbench.report.quantities import POINTS
from bnbench.report.table import NO_VALUE, Notation, Row, Table, is_number, number
from bnbench.report.verdicts import Judged, Seed, Side, concluded, measure, paired
from bnbench.report.writing import Report
from bnbench.stats.differences import slope
from bnbench.wording import cut, did_you_mean, in_words, listing, nearest, shortened

STATE = ("state", "status")
"""Columns, in small letters, that say how a run ended."""
DIVERGED = "diverged"
UNFINISHED = frozenset(
    ["aborted", "canceled", "cancelled", "crashed", "damaged", "deadline", "error", "errored",
     "fail", "failed", "interrupted", "killed", "new", "node_fail", "oom", "out_of_memory",
     "paused", "pending", "preempted", "preempting", "pruned", "queued", "running", "scheduled",
     "stopped", "timeout", "waiting"]
)  # fmt: skip
"""States of runs without a result: bnbench's own, those of W&B, MLflow, Optuna, Ray and SLURM."""


def judged_table(
    found: Table,
    source: yaml.Source,
    *,
    pair: str = "seed",
    setup: str | None = None,
) -> Report:
    """The verdicts on the claims of a source, one family, and their figure.

    `pair`, `setup`: names of columns; the second is looked for where it is None. Raises ConfigError
    for claims that do not fit the table, UsageError for columns that are not there.
    """
    arms = columns.setup_column(found, source, setup)
    states = [at for at, name in enumerate(found.columns) if name.lower() in STATE]
    ended = states[0] if states and arms is not None else None
    asked = Asked(found, source, found.column(pair, "--pair"), arms, ended)
    compared = (arm.setup for c in asked.claims() for arm in (*c.better_arms, *c.worse_arms))
    if asked.setup is None and pair in compared:
        raise UsageError(
            f"--pair {shortened(pair)} is a column that is compared",
            do="name one that says which rows belong together, or add one that numbers them",
        )
    judged = concluded([asked.measured(claim) for claim in asked.claims()])
    rows = [
        record.claim_row(each) | {"seeds": [str(seed) for seed in asked.seeds(each.claim)]}
        for each in judged
    ]
    figures = drawn_claims(judged)
    made = {
        "schema": 1,
        "file": found.name,
        "rows": len(found.rows),
        "setup": None if asked.setup is None else found.columns[asked.setup],
        "pair": found.columns[asked.pair],
        "notices": list(asked.notices()),
        "answer": list(of_claims(rows)),
        "claims": rows,
        "bnbench": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Report({key: record.strict(value) for key, value in made.items()}, figures)


@dataclass(slots=True)
class Asked:
    """Claims about a table: `pair`, `setup` and `ended`, the state, are columns, the last two None
    of a wide one."""

    table: Table
    source: yaml.Source
    pair: int
    setup: int | None
    ended: int | None
    known: dict[int, Notation] = field(default_factory=dict)  # by column
    diverged: int = 0
    also: list[str] = field(default_factory=list)  # what else tells the sides of claims apart

    def claims(self) -> tuple[experiments.Claim, ...]:
        """Raises ConfigError with all that does not fit the table."""
        faults, place = Faults(), self.source.place()
        names = [*self.table.columns]
        if self.setup is not None:
            names = list(dict.fromkeys(text.strip() for text in self.table.texts(self.setup)))
        setups = tuple(experiments.Setup(each, Layer(self.source, {})) for each in names if each)
        written = self.source.data.get("axes")
        axes = [*written] if isinstance(written, dict) else self.table.columns
        reader = claims.ClaimReader(
            self.source,
            setups,
            tuple(self._axis(each, place) for each in axes if each in self.table.columns),
            None,
            faults,
            self._metric,
        )
        read = reader.read()
        for reader.number, each in enumerate(read):
            if each.target is not None or each.when != "last":
                key = "target" if each.target is not None else "when"
                why = f".{key}: a table has no curves, only what its columns say"
                reader.add(key, why, f"remove {key}, and name a column as the metric")
        if faults.found:
            raise faults.error()
        return read

    def _axis(self, name: str, place: Place) -> experiments.Axis:
        at = self.table.columns.index(name)
        return experiments.Axis(tuple(name.split(".")), tuple({*self.table.texts(at)}), (), place)

    def _metric(self, name: str) -> metrics.Metric:
        """Raises ValueError where a long table has no such column."""
        known = metrics.METRICS.get(name)
        at = self.table.find(name) if self.setup is not None else None
        if isinstance(known, metrics.EndReading) and (at is not None or self.setup is None):
            return known
        if at is None and self.setup is not None:
            there = f"columns: {cut(list(map(shortened, self.table.columns)))}"
            raise ValueError(did_you_mean(nearest(name, self.table.columns)) or there)
        percent = at is not None and self._notation(at).percent
        return metrics.Column(name, "points" if percent else "")

    def _notation(self, column: int) -> Notation:
        if column not in self.known:
            self.known[column] = self.table.notation(column)
        return self.known[column]

    def seeds(self, claim: experiments.Claim) -> list[Seed]:
        """Of both sides, numbers first."""
        arms = (*claim.better_arms, *claim.worse_arms)
        seeds = {seed for arm in arms for row in self._rows(claim, arm)
                 if (seed := self._seed(row)) != ""}  # fmt: skip
        return sorted(seeds, key=lambda seed: (isinstance(seed, str), seed))

    def _seed(self, row: Row) -> Seed:
        """3, 3.0 and 03 are one."""
        text = row.values[self.pair].strip()
        number = yaml.resolved(re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", text))
        if isinstance(number, float) and number.is_integer():
            return int(number)
        return number if isinstance(number, int) and not isinstance(number, bool) else text

    def _rows(self, claim: experiments.Claim, arm: experiments.Arm) -> list[Row]:
        """That an arm is about."""
        wanted = [(self.table.columns.index(key), value)
                  for key, value in (claim.at | dict(arm.at)).items()]  # fmt: skip
        return [
            row
            for row in self.table.rows
            if (self.setup is None or row.values[self.setup].strip() == arm.setup)
            and all(
                identity.same_value(yaml.resolved(row.values[at].strip()), value)
                for at, value in wanted
            )
        ]

    def measured(self, claim: experiments.Claim) -> Judged:
        """A claim, all but its verdict."""
        found, seeds = Judged(claim), self.seeds(claim)
        found.better = tuple(self._side(found, arm, seeds) for arm in claim.better_arms)
        found.worse = tuple(self._side(found, arm, seeds) for arm in claim.worse_arms)
        words = [seed for seed in seeds if isinstance(seed, str)]
        if 0 < len(words) < len(seeds):
            pair = self.table.columns[self.pair]
            found.objections.append(
                f"{pair} {cut(list(map(shortened, words)))}: no number, as the others are; leave a "
                "row that sums up others out"
            )
        self._look_for_more(claim)
        self.also += columns.percentages_beside_fractions(
            [(side.words, [*side.values.values()]) for side in (*found.better, *found.worse)]
        )
        measure(found, paired(found, seeds))
        return found

    def _look_for_more(self, claim: experiments.Claim) -> None:
        """Note what else tells the sides of a claim apart."""
        sides = (claim.better_arms, claim.worse_arms)
        if self.setup is None or not claim.worse_arms:
            return
        said = (claim.metric, *(key for arms in sides for arm in arms for key, _ in arm.at))
        named = {self.pair, self.ended, *map(self.table.find, said)}
        rows = [[row for arm in arms for row in self._rows(claim, arm)] for arms in sides]
        if apart := columns.also_differ(self.table, self.setup, named, rows):
            better, worse = (listing(map(str, arms), "and") for arms in sides)
            self.also.append(
                f"{better} and {worse} also differ in {cut(apart)}: the verdict is about all of it "
                "together."
            )

    def _side(self, found: Judged, arm: experiments.Arm, seeds: Sequence[Seed]) -> Side:
        """The values of one arm; what speaks against judging by them goes to `found`."""
        claim, rows = found.claim, self._rows(found.claim, arm)
        at = self.table.column(arm.setup if self.setup is None else claim.metric, "--metric")
        by_seed: dict[Seed, list[Row]] = {seed: [] for seed in seeds}
        for row in rows:
            if (seed := self._seed(row)) in by_seed:
                by_seed[seed].append(row)
        self._require_numbers(at, rows)
        self._look_for_spellings(arm.setup)
        values, lost, twins = dict[Seed, float](), dict[Seed, str](), list[str]()
        diverged = 0
        for seed, some in by_seed.items():
            if not some:
                lost[seed] = "no row"
                continue
            if claim.slope_over is None and len(some) > 1:
                twins.append(f"{seed} (lines {', '.join(str(row.line) for row in some)})")
                continue
            try:
                values[seed], bad = self._value(claim, at, some)
                diverged += bad
            except ValueError as error:
                lines = ", ".join(str(row.line) for row in some)
                lost[seed] = f"line{'s' * (len(some) > 1)} {lines}: {error}"
        pair = self.table.columns[self.pair]
        unpaired = [str(row.line) for row in rows if self._seed(row) == ""]
        if unpaired:
            found.objections.append(f"{arm}: no {pair} in line {cut(unpaired)}")
        if twins:
            rest = [row for some in by_seed.values() for row in some]
            apart = columns.told_apart(self.table, (at, self.pair, self.setup), rest)
            do = f"; name one, as in {arm.setup}@{apart[0]}" if apart else "; keep one of each"
            found.objections.append(f"{arm}: several rows for {pair} {cut(twins)}{do}")
        if lost:
            why = cut([f"{seed} ({each})" for seed, each in lost.items()])
            found.objections.append(
                f"{arm}: no {claim.metric} for {pair} {why}: give what is missing (diverged, of a "
                f"run that did); or, if it is missing by chance, leave {pair} "
                f"{cut(list(map(str, lost)))} out of every setup"
            )
        self.diverged += diverged
        words = [str(arm), *(f"{key} {in_words(value)}" for key, value in claim.at.items())]
        missing = len(seeds) - len(values)
        return Side(arm, ", ".join(words), values, diverged, missing, frozenset(), {})

    def _look_for_spellings(self, setup: str) -> None:
        """Note names of other setups that are this one's but for capitals, or look like it."""
        if self.setup is not None:
            texts = {text.strip() for text in self.table.texts(self.setup)} - {setup}
            other = sorted(text for text in texts if columns.seen(text) == columns.seen(setup))
            self.also += [f"{shortened(each)} is another setup than {setup}." for each in other]

    def _require_numbers(self, at: int, rows: Sequence[Row]) -> None:
        """Raises UsageError where a column has texts alone: it is another than was meant."""
        texts = {row.values[at].strip() for row in rows}
        texts = {each for each in texts if each.lower() not in NO_VALUE | {DIVERGED}}
        if texts and not any(is_number(each, self._notation(at)) for each in texts):
            raise UsageError(
                f"{self.table.name}: {self.table.columns[at]} has no numbers, but "
                f"{cut(sorted(map(shortened, texts)))}",
                do="name a column of numbers",
            )

    def _value(self, claim: experiments.Claim, at: int, rows: Sequence[Row]) -> tuple[float, bool]:
        """The metric of one seed, or its slope; whether the run diverged. Raises ValueError."""
        if claim.slope_over is None:
            return self._reading(claim, at, rows[0])
        along = self.table.columns.index(claim.slope_over)
        numbers = self._notation(along)
        across = [log2(number(row.values[along], numbers)) for row in rows]
        up = [self._reading(claim, at, row)[0] for row in rows]
        return slope(across, up), False

    def _reading(self, claim: experiments.Claim, at: int, row: Row) -> tuple[float, bool]:
        """One row's value in the metric's unit; whether its run diverged. Raises ValueError."""
        text, state = row.values[at], self._state(row)
        if DIVERGED in (state, text.strip().lower()):
            value, diverged = _worst(claim), True
        elif state in UNFINISHED:
            raise ValueError(f"the run is {state}")
        else:
            value, diverged = number(text, self._notation(at)), False
        metric = claim.measured
        if isinstance(metric, metrics.EndReading) and metric.quantity != "loss" and not diverged:
            if not 0 <= value <= 1:
                raise ValueError(f"{text} is no fraction, as {claim.metric} is")
            value *= POINTS
        if claim.log:
            if value <= 0:
                raise ValueError(f"{in_words(value)} has no logarithm")
            value = log2(value)
        return value, diverged

    def _state(self, row: Row) -> str:
        """How a run ended, in small letters; "" where a long table does not say it."""
        return "" if self.ended is None else row.values[self.ended].strip().lower()

    def notices(self) -> Iterator[str]:
        """What a reader must know of how the table was read."""
        named, pair = self.table.columns, self.table.columns[self.pair]
        if self.setup is None:
            yield f"Each setup is a column; a row is a value of {pair}."
        else:
            yield f"{named[self.setup]} tells setups apart; {pair} pairs their rows."
        if pair.rpartition(".")[2].lower() != "seed":
            yield f"Seeds, below, are values of {pair}."
        commas = [named[at] for at, notation in self.known.items() if notation.comma]
        if commas:
            yield f"Decimal commas, 0,5 for 0.5, in {cut(commas)}."
        yield from dict.fromkeys(self.also)
        if self.diverged:
            yield (
                f"Values of runs that diverged ({self.diverged}) are beyond any number on the bad "
                "side: ranked and counted, part of no mean."
            )


def _worst(claim: experiments.Claim) -> float:
    """At which end a run is that diverged. Raises ValueError where nothing says it."""
    end = metrics.worst(claim.measured)
    if end is None and claim.direction == "two-sided":
        raise ValueError("diverged, and a two-sided claim does not say which end is bad")
    return inf if end == "high" or (end is None and claim.direction == "down") else -inf
