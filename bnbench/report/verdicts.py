"""The claims of an experiment, judged from its runs: paired differences, objections, verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isinf, isnan, log2

from bnbench import config as configuration
from bnbench.config import (
    DATASETS,
    Arm,
    Claim,
    EndReading,
    ToTarget,
    UsableLr,
    in_words,
)
from bnbench.report.quantities import LR, quantity, usable
from bnbench.report.study import StudiedRun, Study, by_seed
from bnbench.report.tuning import Tuned, choice, tuned
from bnbench.stats import Effect, Verdict, effect, judge, probability_of_superiority, slope


@dataclass(frozen=True, slots=True)
class Side:
    """One arm of a claim: its metric by seed, in the metric's unit.

    ±inf where a run diverged or never got there. `words`: the setup with its values.
    """

    arm: Arm
    words: str
    values: dict[int, float]
    diverged: int
    missing: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its verdict.

    `pairs`: the difference at each seed, oriented so that + favours the claim (two-sided: better
    minus worse). `superiority`: P(better > worse) over all pairs of seeds, oriented the same way.
    """

    claim: Claim
    verdict: Verdict
    better: tuple[Side, ...]
    worse: tuple[Side, ...]
    pairs: dict[int, float]
    unit: str
    superiority: float | None


@dataclass(slots=True)
class _Measured:
    """A claim's sides and differences before its family is judged."""

    claim: Claim
    better: tuple[Side, ...] = ()
    worse: tuple[Side, ...] = ()
    pairs: dict[int, float] = field(default_factory=dict)
    objections: list[str] = field(default_factory=list)
    effect: Effect | None = None


def judged(study: Study) -> list[Judged]:
    """Every claim of the experiment, in the file's order; one family for Holm's correction."""
    choices = tuned(study)
    refused = {
        claim.id: reason
        for claim, reason in configuration.doubts(
            study.experiment.claims,
            tuple(run.config for run in study.runs),
            study.experiment.tune,
        )
    }
    measured = [
        _Measured(claim, objections=[refused[claim.id]])
        if claim.id in refused
        else _measured(claim, study, choices)
        for claim in study.experiment.claims
    ]
    verdicts = judge([(each.effect, each.objections) for each in measured])
    return [
        Judged(
            claim=each.claim,
            verdict=verdict,
            better=each.better,
            worse=each.worse,
            pairs=each.pairs,
            unit="doublings" if each.claim.log else configuration.unit(each.claim.metric),
            superiority=_superiority(each),
        )
        for each, verdict in zip(measured, verdicts, strict=True)
    ]


def _measured(claim: Claim, study: Study, choices: Sequence[Tuned]) -> _Measured:
    found = _Measured(claim)
    trials: dict[str, int] = {}

    def sides(arms: Sequence[Arm]) -> tuple[Side, ...]:
        return tuple(_side(claim, arm, study, choices, found.objections, trials) for arm in arms)

    found.better, found.worse = sides(claim.better), sides(claim.worse)
    if len(set(trials.values())) > 1:
        counts = ", ".join(f"{setup}: {count}" for setup, count in trials.items())
        found.objections.append(f"unequal trials to choose from ({counts})")
    neither = 0
    for seed in study.seeds:
        values = [[side.values.get(seed) for side in part] for part in (found.better, found.worse)]
        if any(value is None for part in values for value in part):
            continue
        difference = _parts(values[0]) - _parts(values[1])
        if isnan(difference):  # both are infinite: no difference was seen
            neither += 1
            difference = 0.0
        found.pairs[seed] = -difference if claim.direction == "down" else difference
    if neither and neither == len(found.pairs):
        found.objections.append("neither side ever got there")
    found.objections += _insane(found, study)
    if found.pairs:
        found.effect = effect(
            list(found.pairs.values()),
            smallest_effect=claim.smallest_effect,
            direction=claim.direction,
        )
    elif not found.objections:
        found.objections.append("no seed has a value on both sides")
    return found


def _parts(values: Sequence[float | None]) -> float:
    """The first, minus the second where there are two; 0 for an opponent that is not there."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return 0.0
    return numbers[0] if len(numbers) == 1 else numbers[0] - numbers[1]


def _side(
    claim: Claim,
    arm: Arm,
    study: Study,
    choices: Sequence[Tuned],
    objections: list[str],
    trials: dict[str, int],
) -> Side:
    meant = {id(run.config): run for run in study.runs}
    chosen = configuration.runs_of(claim, arm, tuple(run.config for run in study.runs))
    runs = [meant[id(config)] for config in chosen]
    words = [str(arm), *(f"{key.rpartition('.')[2]} {in_words(v)}" for key, v in claim.at.items())]
    tune = study.experiment.tune
    open_axes = {claim.slope_over, LR if isinstance(claim.metric, UsableLr) else None}
    asked = claim.at | dict(arm.at)
    if tune is not None and tune.axis not in asked and tune.axis not in open_axes:
        runs, taken = _at_the_choice(runs, study, choices, tune.axis)
        for each in taken:
            if each.at_edge:
                objections.append(
                    f"{arm}: the chosen {tune.axis} {in_words(each.value)} is an end of its grid"
                )
        if taken:
            trials[str(arm)] = len(taken[0].values)
            name = tune.axis.rpartition(".")[2]
            best = in_words(taken[0].value)
            words.append(f"{name} {best} (best of {len(taken[0].values)})")
    values: dict[int, float] = {}
    missing = 0
    for seed, of_seed in by_seed(runs):
        value = _value(claim, of_seed)
        if value is None:
            missing += 1
        else:
            values[seed] = value
    missing += len(study.seeds) - len({run.seed for run in runs})
    if missing:
        objections.append(_missing(arm, runs, missing))
    if isinstance(claim.metric, UsableLr):
        objections += _at_the_end(claim, arm, runs)
    diverged = sum(run.state == "diverged" for run in runs)
    return Side(arm, ", ".join(words), values, diverged, missing)


def _at_the_choice(
    runs: Sequence[StudiedRun], study: Study, choices: Sequence[Tuned], axis: str
) -> tuple[list[StudiedRun], list[Tuned]]:
    """The runs at the value that tuning chose among their neighbours, and the choices."""
    kept, taken = [], list[Tuned]()
    wanted = {id(run) for run in runs}
    for cell in study.cells:
        found = choice(choices, cell, axis)
        inside = [run for run in cell.runs if id(run) in wanted]
        if not inside:
            continue
        if found is None or cell.point[axis] == found.value:
            kept += inside
            taken += [found] if found is not None and found not in taken else []
    return kept, taken


def _value(claim: Claim, runs: Sequence[StudiedRun]) -> float | None:
    """The claim's metric of one seed: of its run, or its slope over the runs along an axis."""
    if claim.slope_over is None or isinstance(claim.metric, UsableLr):
        if len(runs) != 1 and not isinstance(claim.metric, UsableLr):
            return None
        return _quantity(claim, runs)
    along = [run for run in runs if run.point.get(claim.slope_over) is not None]
    readings = [_quantity(claim, [run]) for run in along]
    finite = [value for value in readings if value is not None and not isinf(value)]
    if len(finite) < len(readings) or len(finite) < 2:
        return None
    return slope([log2(run.point[claim.slope_over]) for run in along], finite)


def _quantity(claim: Claim, runs: Sequence[StudiedRun]) -> float | None:
    value = quantity(claim.metric, runs, target=claim.target, when=claim.when)
    if value is None or not claim.log:
        return value
    return log2(value) if value > 0 else None


def _missing(arm: Arm, runs: Sequence[StudiedRun], missing: int) -> str:
    undone = [run for run in runs if not run.done]
    if undone:
        states = sorted({run.state for run in undone})
        return f"{arm}: {len(undone)} of {len(runs)} runs have no result ({', '.join(states)})"
    return f"{arm}: no such value of {missing} {'seed' if missing == 1 else 'seeds'}"


def _at_the_end(claim: Claim, arm: Arm, runs: Sequence[StudiedRun]) -> Iterator[str]:
    """Where the largest rate tried was usable, what lies beyond is unknown.

    Of the arm that the claim favours it only makes the effect larger.
    """
    if arm in claim.better and claim.direction == "up" and len(claim.better) == 1:
        return
    rates = [float(run.point[LR]) for run in runs]
    top = [
        run
        for run in runs
        if float(run.point[LR]) == max(rates) and usable(run, claim.target or 0.0)
    ]
    if top:
        yield f"{arm}: the largest {LR} tried, {in_words(max(rates))}, is still usable"


def _insane(found: _Measured, study: Study) -> Iterator[str]:
    """Checks without which no number means anything."""
    for run in study.runs:
        gap = (run.history.gaps.get("val") or {}).get("loss", 0.0)
        layers = (run.manifest or {}).get("hparams", {}).get("norm.kind")
        if layers in ("none", "group", "layer", "instance", "rms") and gap != 0.0:
            yield f"sanity: {run.folder.name} has no batch statistics, yet a gap of {gap:g}"
            return
    metric = found.claim.metric
    if found.claim.slope_over is not None:
        return
    if isinstance(metric, EndReading) and metric.quantity == "accuracy":
        dataset = study.runs[0].config.data.dataset
        classes = DATASETS[dataset].classes if dataset in DATASETS else None
        sides = (*found.better, *found.worse)
        values = [value for side in sides for value in side.values.values()]
        if classes and values and max(values) < 150 / classes:
            yield f"sanity: nobody learned; chance is {100 / classes:g} %"
    elif isinstance(metric, ToTarget) and found.pairs:
        values = [v for side in (*found.better, *found.worse) for v in side.values.values()]
        if all(value == inf for value in values):
            yield f"sanity: no run reaches an accuracy of {found.claim.target:g} twice in a row"


def _superiority(found: _Measured) -> float | None:
    if len(found.better) != 1 or len(found.worse) != 1:
        return None
    better, worse = (list(side[0].values.values()) for side in (found.better, found.worse))
    if not better or not worse:
        return None
    above = probability_of_superiority(better, worse)
    return 1 - above if found.claim.direction == "down" else above
