"""The diagnosis of a network: measure, judge, leave no trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import nan
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _NormBase

from bnbench.data.own import numbered_otherwise
from bnbench.diagnosis import causes, criteria
from bnbench.diagnosis.batches import Collected, collect
from bnbench.diagnosis.case import Case
from bnbench.diagnosis.evidence import Evidence, Target
from bnbench.diagnosis.findings import findings
from bnbench.diagnosis.finite import non_finite, non_finite_output
from bnbench.diagnosis.foreign import Network, averages, in_a_sentence, plain, uncompiled, untouched
from bnbench.diagnosis.passes import REFERENCE, Passes, Tell, measure
from bnbench.diagnosis.predictions import Predictions
from bnbench.diagnosis.result import Diagnosis, Finding, Kind, LayerReading, Loader, Score
from bnbench.diagnosis.route import Forward, beside
from bnbench.diagnosis.survey import Manner
from bnbench.diagnosis.task import LOSSES
from bnbench.diagnosis.task import Score as Scoring
from bnbench.errors import UsageError
from bnbench.guard import foreign_code
from bnbench.probes.interception import class_name
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.running_error import statistics_error
from bnbench.probes.statistics import Autocast, evaluating
from bnbench.running_statistics import has_statistics, means, tables
from bnbench.wording import cut

IMAGES = 2048
"""Of each loader: 1,000 to 10,000 make precise statistics (Wu & Johnson 2021,
https://arxiv.org/abs/2105.07576, section 3.2)."""

PLAYED: Mapping[Manner, str] = {
    "fixed": "running statistics are used in training, too; batch statistics were not put in",
    "followed": "training does more than to use the batch's statistics, or takes them of a part of "
    "the values; its own forward was played, one batch at a time, and what it adds to its running "
    "statistics was averaged",
    "unknown": "it is not known which statistics training uses; its own forward was played for "
    "batch statistics, and running ones are left as they are elsewhere",
}
"""What is said of layers that are not played as torch's are."""

ENOUGH_IMAGES = 1000
"""With fewer images than this, a note says that the statistics are rough (same source)."""


_of_the_model = foreign_code(in_a_sentence("the model", UsageError))


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """A diagnosis, and what it was made from: a look at the same images may follow."""

    diagnosis: Diagnosis
    evidence: Evidence
    model: Network

    @_of_the_model
    def again(self) -> dict[Loader, Score]:
        """The model in eval mode as it is now, by loader. Raises UsageError where it is worse."""
        found: dict[Loader, Score] = {}
        with untouched(self.model, ()), uncompiled(), evaluating(self.model):
            for before in self.evidence.measured:
                now = self.evidence.running(before.images)
                if criteria.harms(now, before.running):
                    raise UsageError(
                        f"read back, the model is worse on the {before.images.loader} loader's "
                        f"images: {before.running.figures} before, {now.figures} now",
                        do="keep the running statistics; is the checkpoint that of this model?",
                    )
                found[before.images.loader] = _score(before.images.loader, "running", None, now)
        return found


def diagnose(
    model: nn.Module,
    loader: Iterable[Any],
    eval_loader: Iterable[Any] | None = None,
    *,
    batch_sizes: Sequence[int] | None = None,
    images: int = IMAGES,
    seed: int = 0,
    autocast: Autocast = nullcontext,
    forward: Forward | None = None,
    score: Scoring | None = None,
    live: nn.Module | None = None,
    steps: int | None = None,
) -> Diagnosis:
    """Why a model with BatchNorm is fine in training and bad in eval mode, and what to do.

    `loader`: the training loader, as in training (its order and batch size tell). It yields a
    tensor, a tuple (inputs, …, labels, …) or a dict of arguments. `forward`: how such a batch goes
    through the model, forward(model, batch) → output. `score`: score(output, batch) → what each
    example costs, (n,), or a number for the whole batch. Left out: classes, multi-label, dense and
    real-valued labels are recognized; without labels, outputs are compared with those under batch
    statistics. `batch_sizes`: more of them to look at; default: one that is large. `images`: how
    many of each loader, about. `seed`: of the random batches. `autocast`: a context for each
    forward pass. `live`: where the model's weights are an average (EMA, SWA), the model that was
    trained. `steps`: of the optimizer, to tell accumulated micro-batches. It computes where the
    model is.

    The model is as before when this returns or raises: parameters, buffers, flags, hooks, random
    numbers; and so is the process. Raises UsageError, DataError for what cannot be diagnosed.
    """
    target = Target(model, loader, eval_loader, forward, score, live, steps, autocast)
    return examine(target, batch_sizes, images, seed).diagnosis


@_of_the_model
def examine(
    target: Target,
    batch_sizes: Sequence[int] | None,
    images: int,
    seed: int = 0,
    tell: Tell = lambda _: None,
) -> Examination:
    """`diagnose`. `tell`: is told how far it is, from 0 to 1."""
    begun = perf_counter()
    code, autocast = target.code, target.autocast
    network = Network(plain(target.model), code)
    network.route = target.forward
    target.averages = target.averages or averages(network.network)
    _check(images, batch_sizes)
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    with untouched(network, (target.loader, target.eval_loader)), uncompiled():
        taken = partial(beside, network.network, target.forward)
        train = collect(target.loader, "train", images, device, code, seed, taken)
        evaluation = None
        if target.eval_loader is not None:
            evaluation = collect(target.eval_loader, "eval", images, device, code, seed, taken)
        collected = [each for each in (train, evaluation) if each is not None]
        sizes, notes = _sizes(train, batch_sizes)
        if apart := numbered_otherwise(target.loader, target.eval_loader):
            notes.append(f"by the datasets' own names {apart}: the labels do not belong together")
        with evaluating(network):
            passes = Passes(network, autocast, seed, train, target.score)
            broken = non_finite(network, collected, [*passes.survey.calls])
            again = sizes[0] <= criteria.SMALL_BATCH or not network.tracking
            evidence = measure(passes, target, train, evaluation, sizes, again=again, tell=tell)
            for each in evidence.measured:
                if not len(each.running.losses):
                    raise UsageError(
                        f"the {each.images.loader} loader has no labels that count",
                        do="give one whose batches have labels (not -100, 255 or NaN)",
                    )
                if not broken and not each.running.finite:
                    broken = non_finite_output(network, each.images, autocast)
            layers = tuple(_layer(name, norm, evidence) for name, norm in network.norms.items())
            case = Case(evidence, network, layers, seed)
            found = (broken,) if broken else findings(case)
    diagnosis = Diagnosis(
        loss=LOSSES[evidence.task.kind],
        batch_size=sizes[0],
        images={each.loader: len(each) for each in collected},
        seconds=perf_counter() - begun,
        findings=found,
        readings=tuple(_scores(evidence)),
        layers=layers,
        notes=(*notes, *_notes(case, found)),
        worse_recalibrated=tuple(each.images.loader for each in case.worse),
        running=_running(network),
        population=_population(network, evidence.train.own.pools),
    )
    return Examination(diagnosis, evidence, network)


def _check(images: int, batch_sizes: Sequence[int] | None) -> None:
    if images < 2:
        raise UsageError(f"{images} images are too few", do=f"leave it at {IMAGES:,}")
    if batch_sizes and min(batch_sizes) < 2:
        raise UsageError(
            f"a batch of {min(batch_sizes)} has no batch statistics", do="batch sizes are 2 or more"
        )


def _running(model: Network) -> dict[str, tuple[Tensor, ...]]:
    """The running statistics by layer."""
    return {
        name: tuple(
            tensor.detach().to("cpu", torch.float64, copy=True).flatten()
            for _, _, tensor in tables(norm)
        )
        for name, norm in model.norms.items()
        if has_statistics(norm)
    }


def _population(
    model: Network, pools: Mapping[str, PooledStatistics]
) -> dict[str, PooledStatistics]:
    """The statistics by layer, under every name that the layer has in a state dict."""
    modules = dict(model.network.named_modules())
    of = {modules[name]: pool for name, pool in pools.items()}
    saved = model.network.state_dict()

    def fits(name: str, pool: PooledStatistics) -> bool:
        """Whether they can be kept: variances may be too large for float16."""
        kept = saved.get(f"{name}.running_var".removeprefix("."))
        return kept is not None and bool(pool.variance.to(kept.dtype).isfinite().all())

    return {
        name: of[module]
        for name, module in model.network.named_modules(remove_duplicate=False)
        if module in of and of[module].count and fits(name, of[module])
    }


def _sizes(train: Collected, asked: Sequence[int] | None) -> tuple[list[int], list[str]]:
    """Batch sizes, the loader's own first, others ascending; notes on what had to be left out."""
    own, most = train.batch_size, len(train)
    if asked is None:
        # Four batches at least: fewer are no sample of batches.
        large = max(REFERENCE, 4 * own)
        asked = [large] if large <= most // 4 else []
    others = sorted({*asked} - {own})
    over = [size for size in others if size > most]
    notes = [f"batches of {size:,} are left out: {most:,} images" for size in over]
    return [own, *(size for size in others if size <= most)], notes


def _layer(name: str, norm: nn.Module, evidence: Evidence) -> LayerReading:
    pool = evidence.train.own.pools.get(name)
    eps = float(getattr(norm, "eps", 0.0))
    error: dict[str, float] = {}
    dead = under_eps = 0
    if pool is not None and pool.count:
        error = statistics_error(norm, pool)
        found = criteria.channels(pool.mean, pool.variance, eps)
        dead, under_eps = (int(each.sum()) for each in found)
    # Of a layer that is not torch's, momentum may be the weight of the old statistics.
    momentum: float | None = nan
    updates = None
    if isinstance(norm, _NormBase | ScriptModule) and hasattr(norm, "num_batches_tracked"):
        momentum, counted = getattr(norm, "momentum", nan), norm.num_batches_tracked
        updates = None if counted is None else int(counted)
    initial_weight = None
    # A count of 0 says nothing: conversions and old files have none.
    if updates and momentum is not None:
        initial_weight = (1.0 - momentum) ** updates
    reached = name not in evidence.survey.layers or evidence.survey.calls.get(name, 0) > 0
    return LayerReading(
        name=name,
        kind=class_name(norm),
        channels=norm.num_features if isinstance(norm, _NormBase) else means(norm).numel(),
        tracks=has_statistics(norm),
        used=reached if pool is None else pool.count > 0,
        momentum=momentum,
        eps=eps,
        updates=updates,
        initial_weight=initial_weight,
        mean_error=error.get("mean"),
        variance_error=error.get("variance"),
        blame=evidence.blame.get(name),
        dead=dead,
        under_eps=under_eps,
        alone=pool is not None and pool.count == len(evidence.train.images),
    )


def _scores(evidence: Evidence) -> Iterator[Score]:
    for measured in evidence.measured:
        loader = measured.images.loader
        kinds: list[tuple[Kind, int | None, Predictions]] = [("running", None, measured.running)]
        if measured is evidence.train:
            kinds.append(("batch", measured.images.batch_size, evidence.batch))
        for size, there in measured.sizes.items():
            kinds += [("shuffled", size, there.shuffled), ("population", size, there.population)]
        for kind, batch_size, found in kinds:
            yield _score(loader, kind, batch_size, found)


def _score(loader: Loader, kind: Kind, batch_size: int | None, found: Predictions) -> Score:
    return Score(
        loader, kind, batch_size, len(found.losses), found.loss, found.accuracy, found.unit
    )


def _notes(case: Case, found: Sequence[Finding]) -> Iterator[str]:
    """What a reader of the figures has to know."""
    images, survey, task = case.train.images, case.evidence.survey, case.evidence.task
    names = {each.name for each in found}
    if task.place or task.doubtful:
        yield f"part {task.place + 1} of the output is taken as the answer; forward= names another"
    if case.modes.by_function and "mode-branch" not in names:
        yield f"{causes.BY_FUNCTION}: {causes.OWN_MODULES}"
    elif not case.layers and not case.modes.by_function:
        yield (
            "no layer depends on batch statistics: the model has no BatchNorm layer, and what "
            "differs between train() and eval() is something else (dropout?)"
        )
    if not case.layers:
        return
    for manner, says in PLAYED.items():
        kinds = {class_name(layer) for layer in survey.of(manner).values()}
        if kinds:
            yield f"{cut([*survey.of(manner)])} ({', '.join(sorted(kinds))}): {says}"
    unused = [each.name for each in case.layers if not each.used]
    if unused:
        yield f"the forward pass does not reach {cut(unused)}"
    if len(images) < ENOUGH_IMAGES:
        yield (
            f"population statistics of {len(images):,} images are rough: give {ENOUGH_IMAGES:,} "
            "or more"
        )
    if not {"non-iid-batches", "non-finite", "overflowed-variance"} & names:
        mixed = case.mixed()
        if mixed is not None and mixed.sorted:
            yield (
                "the training loader's batches hold fewer classes than shuffled ones would; this "
                "network does not depend on it. If it is not the loader that was trained with, "
                "all is well"
            )
        if case.worse:
            loaders = " and the ".join(f"{each.images.loader} loader's" for each in case.worse)
            why = ": the network was trained on them (frozen BatchNorm?), or on other images"
            if {"reused-layer", "instance-norm-tracks"} & names:
                why = ""
            yield (
                f"running statistics suit the {loaders} images better than the population's{why}. "
                "Do not recalibrate"
            )
    if case.evidence.eval is None:
        yield "one loader only: a shift between two of them was not looked for"
