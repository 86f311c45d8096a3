"""What a reader must know of the cells, whatever is claimed of them: where eval mode is another
network than training mode, which chosen values are ends of their grid, and what else changes with
the batch size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean

from bnbench.config import schema
from bnbench.config.feasible import INITIAL, initial_weight, short_warmup
from bnbench.config.metrics import LR
from bnbench.config.schema.run import BUDGETS
from bnbench.report import words
from bnbench.report.objections import beyond
from bnbench.report.quantities import over_seeds
from bnbench.report.study import Cell, Choice, StudiedRun, Study
from bnbench.stats.looks import MOST
from bnbench.stats.verdict import seeds_to_support
from bnbench.store import Record, Result
from bnbench.wording import counted, cut, in_words, key_words, listing, point_words

BATCH_SIZE, SHARED_BY = "data.batch_size", "norm.batch_size"
LARGE = 5.0
"""Points between the modes that are a remark whatever the question: half of what BatchNorm's error
rises by from 32 images a batch to 2 (Wu & He 2018, https://arxiv.org/abs/1803.08494, table 2)."""
CLOSED = 0.5
"""Of a gap: population statistics that close half of it or more explain it."""
MOST_NAMED = 6


def eval_mode(study: Study, least: float) -> Iterator[str]:
    """Where eval mode differs from training mode by `least` points or more, and by more than
    chance: where it is worse, and where it is better; of the cell that is most, why, and what to
    do."""
    found = []
    for cell in study.chosen:
        gap = over_seeds(cell, "gap")
        if gap is None or abs(gap["mean"]) < least / 100:
            continue
        low, high = gap["interval"] or (min(gap["values"]), max(gap["values"]))
        if low > 0 or high < 0:
            found.append((cell, gap))
    for sign in (-1, 1):  # a lag may turn an answer, the noise of a batch another way
        one = [(cell, gap) for cell, gap in found if sign * gap["mean"] > 0]
        if not one:
            continue
        (most, gap), *others = sorted(one, key=lambda each: -abs(each[1]["mean"]))
        named = [f"{study.named(c)} by {words.percent(abs(g['mean']))}" for c, g in others]
        more = f"; {cut(named, ', ', 'cells')}" if named else ""
        why = _why(study, most) if sign < 0 else ""
        yield (
            f"{study.named(most)}: {words.eval_mode(gap['mean'])} on validation images "
            f"({_spread(gap)}{counted(gap['n'], 'seed')}){more}.{why}"
        )


def _spread(gap: Record) -> str:
    """What stands beside the size of a gap of one sign: its interval, of two seeds the sizes."""
    ends = sorted(abs(end) for end in gap["interval"] or gap["values"])
    said = [words.percent(end) for end in ends]
    if gap["interval"] is not None:
        return f"95 % interval {' to '.join(said)}, "
    return f"{listing(said, 'and')}, " * (len(said) > 1)


def short_warmups(study: Study) -> Iterator[str]:
    """What may have made chosen runs diverge: of the first that it may have."""
    chosen = (run for cell in study.chosen for run in cell.runs)
    for run in (run for run in chosen if run.state == "diverged"):
        steps = (run.manifest or {}).get("total_steps")
        if isinstance(steps, int) and steps > 0 and (hint := short_warmup(run.config, steps)):
            yield f"In {run.setup} {hint}."
            return


def _why(study: Study, cell: Cell) -> str:
    """Of a cell that is worse in eval mode: what population statistics tell, and what to do."""
    scores = [_three(run) for run in cell.completed]
    known = [score for score in scores if score is not None]
    if not known:
        return ""
    running, batch, population = (fmean(score) for score in zip(*known, strict=True))
    run = cell.completed[0]
    diagnose = f"bnbench diagnose {quote(f'{study.folder.path}/{run.name}')}"
    reached = f"{words.percent(population)} % instead of {words.percent(running)} %"
    if population - running < CLOSED * (batch - running):
        return (
            f" Population statistics (precise BN) do not close it: {reached}. `{diagnose}` looks "
            "for the reason."
        )
    told = f" With population statistics (precise BN) it has {reached}: the running statistics "
    steps = run.result.steps if run.result else 0
    left = initial_weight(run.config, steps) or 0.0
    do = f"`{diagnose} --fix FILE` recalibrates them"
    if left < INITIAL:
        return f"{told}are not those of the final weights. {do}, and says more."
    momentum = in_words(getattr(run.config.norm, "momentum", None))
    return (
        f"{told}have not caught up: after {counted(steps, 'step')} at momentum {momentum} their "
        f"initial values still weigh {words.percent(left)} %. Train for more steps, or raise "
        f"norm.momentum; {do}."
    )


def _three(run: StudiedRun) -> tuple[float, float, float] | None:
    """Validation accuracies under running, batch and population statistics."""
    running, batch, population = (
        run.score("val", kind) for kind in ("running", "batch", "population")
    )
    if running is None or batch is None or population is None:
        return None
    return running, batch, population


def ends_of_grids(study: Study, *, advised: bool = True) -> Iterator[str]:
    """Which chosen values are an end of their grid; `advised`: with what to do about it."""
    by_setup: dict[str, list[Choice]] = {}
    for choice in study.choices:
        by_setup.setdefault(choice.setup, []).append(choice)
    whose, more = list[str](), list[str]()
    for setup, choices in by_setup.items():
        edges = [each for each in choices if each.at_edge]
        more += map(beyond, edges if study.tuned_axis == LR and advised else ())
        if len(edges) == len(choices):
            whose.append(setup)
        else:
            whose += [f"{setup} at {point_words(each.at)}" for each in edges]
    if whose:
        many = listing(whose, "and") if len(whose) <= MOST_NAMED else f"{len(whose)} of the choices"
        axis = key_words(study.tuned_axis or "")
        add = listing(dict.fromkeys(more), "and") if more else ""
        do = f" (add {add} to {LR} in the file, and sweep again)" if add else ""
        yield f"The chosen {axis} of {many} is an end of its grid: a better one may lie beyond{do}."


def with_batch_size(study: Study) -> Iterator[str]:
    """What else changes with the batch size."""
    budgets = {
        key for run in study.runs for key in BUDGETS if getattr(run.config.train, key) is not None
    }
    there = _results(study)
    if len(there) < 2 or len(budgets) > 1:
        return
    (budget,) = budgets
    low, high = min(there), max(there)
    few, many = there[low], there[high]
    if budget == "steps":
        said = (
            f"Steps are fixed (train.steps): batch size {low} sees {few.examples:,} images, {high} "
            f"sees {many.examples:,}; train.epochs or train.examples would fix the images"
        )
    else:
        said = (
            f"Images are fixed (train.{budget}): batch size {low} takes {few.steps:,} steps, "
            f"{high} takes {many.steps:,}; train.steps would fix the steps"
        )
    rules = sorted({run.config.optim.lr_rule for run in study.runs})
    rate = ""
    if rules != ["none"]:
        rate = f" The learning rate changes with it (optim.lr_rule: {listing(rules, 'and')})."
    elif LR not in study.varying:
        rate = " The learning rate does not change with it."
    yield f"{said}.{rate}"


def further(study: Study, claims: Sequence[Record]) -> Iterator[str]:
    """What else can be done to answer the question of claims, of which there are rows."""
    if claims:
        yield from statistics_alone(study)
        yield from _on_other_seeds(study, claims)


def _on_other_seeds(study: Study, claims: Sequence[Record]) -> Iterator[str]:
    """How what is undecided with all seeds of the file can be decided: more seeds that are added
    after a look at these are not corrected for, others are a study of their own."""
    experiment, folder = study.experiment, study.folder
    effects = [each["effect"] for each in claims if each["effect"] is not None]
    whole = [each["seeds_needed"] for each in effects if each["n"] == len(experiment.seeds)]
    needed = max((each for each in whole if each is not None), default=0)
    least = seeds_to_support([claim.direction for claim in experiment.claims])
    if not needed or len(experiment.seeds) < least or experiment.registered is not None:
        return
    options = [
        f"--set experiment={experiment.name}-2",
        f"--set seeds=[{max(experiment.seeds) + 1}]",
    ]
    options += ["--set looks=null"] * bool(experiment.looks) + ["--until decided"]
    options += [f"--max-seeds {2 * needed}"] * (2 * needed > MOST)
    where = folder.path.parent
    options += [f"--runs-dir {quote(str(where))}"] * (where != Path("runs"))
    yield (
        "Seeds that are added after a look at these are not corrected for; undecided claims can be "
        "decided on others, as a study of its own: "
        f"`bnbench sweep {quote(str(folder.file))} {' '.join(options)}`."
    )


def statistics_alone(study: Study) -> Iterator[str]:
    """How to compare statistics over fewer images and nothing else, where a claim compares batch
    sizes, or all that there is, where there are no claims."""
    there, claims = _results(study), study.experiment.claims
    chunked = {run.setup for run in study.runs if isinstance(run.config.norm, schema.Chunked)}
    sizes = set() if claims else set(there)
    for claim in claims:
        arms = (*claim.better_arms, *claim.worse_arms)
        its = there.keys() & {dict(arm.at).get(BATCH_SIZE) for arm in arms}
        if claim.slope_over == BATCH_SIZE:
            its = set(there)
        if len(its) > 1 and any(arm.setup in chunked for arm in arms):
            sizes |= its
    if len(sizes) < 2 or not chunked or SHARED_BY in study.varying:
        return
    few, many = there[min(sizes)], there[max(sizes)]
    said = f"{few.steps:,} steps with {many.steps:,}"
    if few.steps == many.steps:
        said = f"{few.examples:,} images with {many.examples:,}"
    yield (
        f"This compares {said}; for statistics alone, put {SHARED_BY} in the axes "
        f"(`bnbench explain {SHARED_BY}`)."
    )


def _results(study: Study) -> dict[int, Result]:
    """Of a completed run at each batch size of an axis."""
    return {
        run.point[BATCH_SIZE]: run.result
        for run in study.runs
        if run.state == "completed" and run.result and run.point.get(BATCH_SIZE) is not None
    }
