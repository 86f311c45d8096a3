"""What speaks against judging a claim, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf

from bnbench.config import experiments, metrics, schema
from bnbench.config.metrics import LR
from bnbench.report.quantities import POINTS, usable
from bnbench.report.study import Choice, StudiedRun, Study, within_chance
from bnbench.stats.effect import Effect
from bnbench.stats.verdict import points_at
from bnbench.wording import counted, in_words, listing


def moved(claim: experiments.Claim, tune: schema.TuneConfig | None) -> int:
    """1 or −1: whether the claim's metric is larger or smaller where more values of the tuned axis
    (for usable_lr: more learning rates) are tried; 0 where that is not known."""
    match claim.measured:
        case metrics.UsableLr():
            return 1
        case metrics.EndReading("val" | "test", "running", quantity) if (
            tune and not claim.slope_over
        ):
            signs = {"val/accuracy": {"accuracy": 1, "error": -1}, "val/loss": {"loss": -1}}
            return signs[tune.by].get(quantity, 0)
    return 0


def could_turn(sign: int, effect: Effect | None) -> bool:
    """Whether an arm that is better than it was seen could change what an effect says. `sign`: 1
    where that would raise the effect, −1 where it would lower it, 0 where it could do either.

    One above zero becomes only clearer if it rises, one below if it falls; one that is negligible
    need not stay so."""
    if effect is None or points_at(effect, effect.interval) == "negligible":
        return True
    return sign != (1 if effect.median > 0 else -1)


def end_of_grid(arm: experiments.Arm, axis: str, choices: Iterable[Choice]) -> Iterator[str]:
    """If the chosen value of an axis is an end of its grid, a better one may lie beyond."""
    for each in choices:
        if each.at_edge:
            wanted = "a smaller one" if each.value == min(each.values) else "a larger one"
            if axis == LR:
                wanted = f"{beyond(each)} to {axis} in the file, and sweep again"
            yield (
                f"{arm.words}: the chosen {axis} {in_words(each.value)} is an end of its grid "
                f"(add {wanted})"
            )


def beyond(choice: Choice) -> str:
    """The next value outside of a grid of positive ones: as far away as the chosen one's neighbour
    inside, to as few digits as leave it outside."""
    inside = choice.values[1 if choice.value == choice.values[0] else -2]
    exact = choice.value**2 / inside
    rounded = (float(f"{exact:.{digits}e}") for digits in range(6))
    outside = (each for each in rounded if (each - choice.value) * (choice.value - inside) > 0)
    return in_words(next(outside, exact))


def still_usable(
    claim: experiments.Claim, arm: experiments.Arm, runs: Sequence[StudiedRun]
) -> Iterator[str]:
    """If the largest learning rate tried was usable, still larger ones may be, too."""
    most = max((float(run.point[LR]) for run in runs), default=0.0)
    if any(float(run.point[LR]) == most and usable(run, claim.target or 0.0) for run in runs):
        yield f"{arm.words}: the largest {LR} tried, {in_words(most)}, is still usable"


def not_learned(arm: experiments.Arm, runs: Sequence[StudiedRun], target: float) -> Iterator[str]:
    """What a network reads that has not learned says nothing about one that has."""
    failed = sum(run.result is not None and not usable(run, target) for run in runs)
    if failed:
        yield (
            f"{arm.words}: {failed} of {counted(len(runs), 'run')} did not learn: a validation "
            f"accuracy below {target:g} at the end"
        )


def at_one_rate(
    claim: experiments.Claim, arm: experiments.Arm, runs: Sequence[StudiedRun], study: Study
) -> Iterator[str]:
    """That most runs of an arm did not learn at the only learning rate it was given, which the
    claim does not ask for: what is judged then is the rate."""
    asked = {*claim.at, *dict(arm.at), claim.slope_over, study.tuned_axis}
    if LR in asked or isinstance(claim.measured, metrics.UsableLr | metrics.Speed):
        return
    ended = [run for run in runs if run.result is not None]
    lost = sum(run.at_chance or run.state == "diverged" for run in ended)
    if 2 * lost > len(ended):
        rates = listing(dict.fromkeys(in_words(run.config.optim.lr) for run in ended), "and")
        yield (
            f"{arm.words}: {lost} of {counted(len(ended), 'run')} did not learn at learning rate "
            f"{rates}, and no other was tried (tune: {{axis: {LR}}})"
        )


def at_chance(
    claim: experiments.Claim, arm: experiments.Arm, runs: Sequence[StudiedRun]
) -> Iterator[str]:
    """How many runs of an arm did not learn, where the metric does not say it itself."""
    lost = sum(run.at_chance for run in runs)
    if lost and not isinstance(claim.measured, metrics.UsableLr | metrics.ToTarget | metrics.Speed):
        yield f"{arm.words}: {lost} of {len(runs)} at chance"


def failed_checks(claim: experiments.Claim, values: Sequence[float], study: Study) -> Iterator[str]:
    """Checks without which no number means anything."""
    for run in study.runs:
        gap = run.history.gaps.get("val", {}).get("loss", 0.0)
        if gap != 0.0 and not run.may_have_a_gap:
            yield f"sanity: {run.name} has no batch statistics, yet a gap of {gap:g}"
            return
    metric = claim.measured
    if claim.slope_over is not None:
        return
    if isinstance(metric, metrics.EndReading) and metric.quantity == "accuracy":
        best = max(values, default=inf) / POINTS
        if study.classes and within_chance(best, study.classes):
            yield (
                f"sanity: by {claim.metric} no run of either side is clear of chance, "
                f"{POINTS / study.classes:g} %"
            )
    elif isinstance(metric, metrics.ToTarget) and set(values) == {inf}:
        yield f"sanity: no run reaches an accuracy of {claim.target:g} twice in a row"
