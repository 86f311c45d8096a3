"""What a paper says of a study: how it was done, from its configurations, manifests and statistics.

A key that several values were trained with is said with all of them: `0.01 or 0.1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from bnbench import __version__
from bnbench.config import identity, schema
from bnbench.report import settings, words
from bnbench.report.quantities import metrics_of
from bnbench.report.remarks import ends_of_grids
from bnbench.report.study import Cell, Point, Study
from bnbench.stats import racing
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL
from bnbench.stats.looks import shares
from bnbench.stats.verdict import LEVEL
from bnbench.store import Record
from bnbench.wording import counted, in_words, key_words, listing

INTERVAL = "Student's 95 % interval"
JUDGING = (
    f"The differences between runs of the same seed decide, with {INTERVAL} of their mean{{}}: "
    "supported where it lies above the smallest effect that matters, refuted where it lies below "
    "its negative, negligible where it lies between both; each only where an exact sign-flip test "
    f"of the differences beyond that edge gives p < {LEVEL:g}{{}}, and otherwise inconclusive."
)
OF_INFINITE = " (of the median, from order statistics, where a value is infinite)"
CORRECTED = " after Holm's correction over all claims, outcome by outcome"
IMAGES = (
    "An interval in parentheses takes the images as a sample, too: seeds and images are crossed "
    "random factors, with Satterthwaite's degrees of freedom."
)


def caption(study: Study) -> str:
    """Protocol, statistics and versions in a few sentences, to stand at a table of the cells that
    tuning chose."""
    seeds = counted(len(study.seeds), "seed")
    shown = f"each of {seeds}" if len(study.seeds) > 1 else seeds
    if len(study.seeds) >= SEEDS_FOR_AN_INTERVAL:
        shown = f"means over {seeds} with {INTERVAL} (on the logit scale) in brackets"
    return _sentences(
        [
            f"Test accuracy in eval mode (running statistics) after {_budget(study)} of "
            f"{_data(study)}, in batches of {_of('data', 'batch_size', study)} images: {shown}.",
            f"The {_axis(study)} was chosen on {_by(study)}." if study.choices else "",
            *ends_of_grids(study, advised=False),
            words.ARROW_MEANS if any(map(words.has_arrow, map(metrics_of, study.chosen))) else "",
            words.GAP_MEANS,
            words.AT_CHANCE if _at_chance(study.chosen) else "",
            f"{_unfinished(study)}{_versions(study)}",
        ]
    )


def methods(study: Study, claims: Sequence[Record]) -> str:
    """A paragraph on how the study was done, and these claims of its record were judged."""
    rows: dict[str, list[settings.Row]] = {setup: [] for setup in study.setups}
    for cell in study.cells:
        rows[cell.setup].append(identity.in_force(cell.runs[0].config))
    return _sentences([*_trained(study, rows), *_compared(study, claims)])


def judging(claims: Sequence[Record], looks: Sequence[int]) -> str:
    """How these claims of a record were judged. `looks`: numbers of seeds at which they are; none:
    once."""
    infinite = any((claim["effect"] or {}).get("infinite") for claim in claims)
    how = JUDGING.format(OF_INFINITE * infinite, CORRECTED * (len(claims) > 1))
    if not looks:
        return how
    spent = listing((f"{share:.2g}" for share in shares(len(looks))), "and")
    levels = listing((f"{100 - 5 * share:.4g}" for share in shares(len(looks))), "and")
    return (
        f"{how} Seeds were added for undecided claims alone, at looks set before the first run "
        f"({listing(map(str, looks), 'and')} seeds), which may spend {spent} of the error "
        "(Bonferroni): p-values are divided by the look's share, and its intervals are of "
        f"{levels} % in place of 95 %."
    )


def smallest(sizes: Sequence[tuple[float, str]]) -> str:
    """The smallest effects of claims, each with its unit: one for all, or one by one."""
    said = [
        f"{words.number(size)} {unit[:-1] if size == 1 else unit}".strip() for size, unit in sizes
    ]
    if len(set(said)) == 1:
        return f"The smallest effect that matters is {said[0]}."
    alike = ((each, len([*group])) for each, group in groupby(said))
    each = (f"{count} times {words}" if count > 1 else words for words, count in alike)
    return f"The smallest effects that matter are, claim by claim, {listing(each, 'and')}."


def _sentences(each: Iterable[str]) -> str:
    return " ".join(each for each in each if each)


def _trained(study: Study, rows: Mapping[str, Sequence[settings.Row]]) -> Iterator[str]:
    every = [row for some in rows.values() for row in some]
    apart = {
        key
        for key in dict.fromkeys(key for row in every for key in row)
        if not key.startswith("norm.") and key not in study.varying
        and len({row.get(key) for row in every}) > 1
    }  # fmt: skip
    augment = _of("data", "augment", study)
    augmented = "out augmentation" if augment == "none" else f" augmentation {augment}"
    yield f"The images are of {_data(study)}, with{augmented}."
    setups = "; ".join(f"{setup} ({settings.setup(some, apart)})" for setup, some in rows.items())
    yield (
        f"The network is {settings.block('model', every)}. It was trained in "
        f"{counted(len(rows), 'setup')}: {setups}."
    )
    yield (
        f"Training was by {settings.block('optim', every)} for {_budget(study)}, in batches of "
        f"{_of('data', 'batch_size', study)} images, {_of('data', 'order', study)}, in "
        f"{_of('compute', 'precision', study)}."
    )


def _compared(study: Study, claims: Sequence[Record]) -> Iterator[str]:
    if study.choices:
        yield (
            f"The {_axis(study)} was chosen for each setup and each value of the other axes by "
            f"{_by(study)}: of the values with the fewest diverged seeds the one with the best "
            "mean over seeds."
        )
        yield from ends_of_grids(study, advised=False)
    if study.experiment.raced:
        yield (
            "A value got no further seeds, and was not chosen, once it was worse than the best one "
            f"(racing): in a one-sided paired t-test at p < {racing.LEVEL:g}, from {racing.FIRST} "
            f"seeds on, or with {racing.DIVERGED} diverged seeds more than the best one."
        )
    yield (
        f"Each configuration was trained with {_seeds(study)}; runs that share a seed share "
        "initial weights, split and order of images."
    )
    yield (
        "Test images were evaluated once, after training, and no choice rests on them. Accuracies "
        f"are of the final weights under running statistics, as in eval mode: {_values(study)}."
    )
    lost = study.count("diverged")
    above = _of("train", "diverged_above", study)
    yield (
        f"{_unfinished(study)}Of {counted(len(study.runs), 'run')} {lost or 'none'} diverged (a "
        f"loss that is not finite, or above {above} times ln(classes) after the warm-up)"
        + "; they are counted, not averaged" * bool(lost)
        + f"{_left_at_chance(study)}."
    )
    if claims:
        then = study.experiment.registered
        when = f"registered on {then.date[:10]}" if then else "not registered before the first run"
        yield (
            f"The experiment's file states {counted(len(claims), 'claim')}, {when}. "
            f"{judging(claims, study.experiment.looks)} "
            f"{smallest([(each.smallest_effect, each.unit) for each in study.experiment.claims])}"
        )
    if any(words.intervals(claim)[1] for claim in claims):
        yield IMAGES
    yield _versions(study)


def _seeds(study: Study) -> str:
    """`6 seeds, values given up with 3 to 5`."""

    def of(cells: Iterable[Cell]) -> str:
        counts = sorted({len(cell.runs) for cell in cells})
        return " to ".join(dict.fromkeys((f"{counts[0]:,}", f"{counts[-1]:,}"))) if counts else ""

    gone = of(cell for cell in study.cells if cell.key in study.given_up)
    kept = of(cell for cell in study.cells if cell.key not in study.given_up)
    seeds = "1 seed" if kept == "1" else f"{kept} seeds"
    return seeds + f", values given up in tuning with {gone}" * bool(gone)


def _left_at_chance(study: Study) -> str:
    """How many runs, and whether they are in means of the table; "" of none."""
    every, averaged = _at_chance(study.cells), _at_chance(study.chosen)
    told = f"; {every:,} stayed at chance" * bool(every)
    if averaged < every:
        told += f", {averaged or 'none'} of them at a chosen {_axis(study)}"
    if averaged:
        told += f"{',' if averaged < every else ' and are'} averaged with the others"
    return told


def _values(study: Study) -> str:
    """What stands for a cell of as many seeds as these cells have."""
    counts = {len(cell.completed) for cell in study.cells}
    each = "that of each seed that completed"
    means = f"means over the seeds that completed, with {INTERVAL} (on the logit scale) in brackets"
    if max(counts, default=0) < SEEDS_FOR_AN_INTERVAL:
        return each
    return f"{each}, where there are one or two, else {means}" if counts & {1, 2} else means


def _at_chance(cells: Sequence[Cell]) -> int:
    return sum(run.at_chance for cell in cells for run in cell.runs)


def _of(block: str, key: str, study: Study) -> str:
    """All values of a key."""
    found = (getattr(getattr(run.config, block), key) for run in study.runs)
    return listing(dict.fromkeys(in_words(value) for value in found if value is not None))


def _stored(study: Study, key: str) -> str:
    """A count of the manifests; "" where none has it."""
    found = {run.manifest[key] for run in study.runs if run.manifest and key in run.manifest}
    return listing(f"{value:,}" for value in sorted(found)) if found else ""


def _data(study: Study) -> str:
    counts = [f"{count} {part}" for part in ("train", "validation", "test")
              if (count := _stored(study, f"{part}_images"))]  # fmt: skip
    images = f" ({listing(counts, 'and')} images)" if counts else ""
    names = (
        Path(each.target).name if isinstance(each, schema.CustomData) else each.dataset
        for each in (run.config.data for run in study.runs)
    )
    return f"{listing(dict.fromkeys(names))}{images}"


def _budget(study: Study) -> str:
    """`2,000 images (500 and 32 steps at batch size 4 and 64)`: what was given, and of steps and
    images the other, where it is not said by the batch size."""
    units = {"epochs": "epochs", "steps": "steps", "examples": "images"}
    given = list[str]()
    for key, unit in units.items():
        found = (getattr(run.config.train, key) for run in study.runs)
        values = [f"{value:,}" if isinstance(value, int) else in_words(value)
                  for value in dict.fromkeys(found) if value is not None]  # fmt: skip
        given += [f"{listing(values)} {unit[:-1] if values == ['1'] else unit}"] if values else []
    if any(run.config.train.steps is not None for run in study.runs):
        done = [run for run in study.runs if run.result is not None and run.state == "completed"]
        images = [(run.point, run.result.examples) for run in done if run.result is not None]
        more = _along(study, images, "images") if len({count for _, count in images}) > 1 else ""
    else:
        begun = [(run.point, run.manifest or {}) for run in study.runs]
        steps = [(point, each["total_steps"]) for point, each in begun if "total_steps" in each]
        more = _along(study, steps, "steps")
    return listing(given) + (f" ({more})" if more else "")


def _along(study: Study, counts: Sequence[tuple[Point, int]], unit: str) -> str:
    """`500 and 32 steps at batch size 4 and 64`: counts, and the axis that decides them; if there
    is none, the range. "" without any."""
    if not counts:
        return ""
    every = sorted({count for _, count in counts})
    for axis in study.varying if len(every) > 1 else ():
        found: dict[str, set[int]] = {}
        for point, count in counts:
            found.setdefault(repr(point.get(axis)), set()).add(count)
        values = [value for value in study.axes[axis] if repr(value) in found]
        if len(values) == len(found) and all(len(each) == 1 for each in found.values()):
            ours = listing((f"{found[repr(value)].pop():,}" for value in values), "and")
            return f"{ours} {unit} at {key_words(axis)} {listing(map(in_words, values), 'and')}"
    ends = (f"{count:,}" for count in dict.fromkeys((every[0], every[-1])))
    return f"{' to '.join(ends)} {unit}"


def _unfinished(study: Study) -> str:
    """What must not be kept from a reader of its numbers."""
    done, planned = study.count("completed", "diverged"), len(study.runs)
    return f"Only {done:,} of {counted(planned, 'run')} have a result. " if done < planned else ""


def _axis(study: Study) -> str:
    return settings.called(study.tuned_axis or "")


def _by(study: Study) -> str:
    by = study.experiment.tune.by if study.experiment.tune else ""
    return f"validation {by.rpartition('/')[2]}"


def _versions(study: Study) -> str:
    """`Trained with bnbench 0.1.0 and PyTorch 2.14.1 on the CPU.`: the runs."""
    manifests = [run.manifest for run in study.runs if run.manifest is not None]
    if not manifests:
        return f"bnbench {__version__}."
    versions = [manifest["versions"] for manifest in manifests]
    found = (str(manifest["fingerprints"][-1]["device"]) for manifest in manifests)
    devices = dict.fromkeys("the CPU" if device == "cpu" else device for device in found)
    ours = dict.fromkeys(str(each.get("bnbench", __version__)) for each in versions)
    torch = dict.fromkeys(str(each.get("torch", "?")) for each in versions)
    return (
        f"Trained with bnbench {listing(ours)} and PyTorch {listing(torch)} on {listing(devices)}."
    )
