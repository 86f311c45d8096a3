"""The diagnosis of a network: measure, judge, leave no trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from time import perf_counter
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.diagnosis.criteria import channels, harms, homogeneity
from bnbench.diagnosis.evidence import REFERENCE, Evidence, Measurer, Predictions, all_batch_norms
from bnbench.diagnosis.findings import Judge
from bnbench.diagnosis.foreign import Logits, plain, untouched
from bnbench.diagnosis.loader import Collected, collect, described
from bnbench.diagnosis.nonfinite import non_finite
from bnbench.diagnosis.result import Diagnosis, Finding, Kind, LayerReading, Loader, Score
from bnbench.errors import UsageError
from bnbench.probes.discrepancy import Autocast
from bnbench.probes.running_error import statistics_error

IMAGES = 2048
"""Of each loader: 1,000 to 10,000 make precise statistics (Wu & Johnson 2021,
https://arxiv.org/abs/2105.07576, section 3.2)."""

ENOUGH_IMAGES = 1000
"""With fewer images than this, a note says that the statistics are rough (same source)."""


def diagnose(
    model: nn.Module,
    loader: Iterable[Any],
    eval_loader: Iterable[Any] | None = None,
    *,
    batch_sizes: Sequence[int] | None = None,
    images: int = IMAGES,
    seed: int = 0,
    autocast: Autocast = nullcontext,
) -> Diagnosis:
    """Why a model with BatchNorm is fine in training and bad in eval mode, and what to do.

    `loader`: the training loader, as in training (its order and batch size tell); it yields
    (inputs, labels, …) with class numbers as labels. `batch_sizes`: more of them to look at;
    default: one that is large. `images`: how many of each loader, about. `seed`: of the random
    batches. `autocast`: a context for each forward pass. It computes where the model is.

    The model is as before when this returns or raises: parameters, buffers, flags, hooks, random
    numbers. Raises UsageError, DataError for what cannot be diagnosed.
    """
    begun = perf_counter()
    model = _checked(model, batch_sizes, images)
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    with untouched(model, (loader, eval_loader)):
        train = collect(loader, "train", images, device)
        evaluation = None if eval_loader is None else collect(eval_loader, "eval", images, device)
        return _diagnosed(model, train, evaluation, batch_sizes, autocast, seed, begun)


def _checked(model: object, batch_sizes: Sequence[int] | None, images: int) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model is {described(model)}", do="expected a torch.nn.Module")
    if images < 2:
        raise UsageError(f"{images} images are too few", do=f"leave it at {IMAGES:,}")
    small = [size for size in batch_sizes or () if size < 2]
    if small:
        raise UsageError(
            f"a batch of {small[0]} has no batch statistics", do="batch sizes are 2 or more"
        )
    return plain(model)


def _diagnosed(
    network: nn.Module,
    train: Collected,
    evaluation: Collected | None,
    batch_sizes: Sequence[int] | None,
    autocast: Autocast,
    seed: int,
    begun: float,
) -> Diagnosis:
    model = Logits(network)
    norms = all_batch_norms(network)
    sizes, notes = _sizes(train, batch_sizes)
    broken = [found for each in (train, evaluation) if each and (found := non_finite(model, each))]
    evidence = Measurer(model, autocast, seed).measure(train, evaluation, sizes)
    layers = tuple(_layer(name, norm, evidence) for name, norm in norms.items())
    findings: tuple[Finding, ...] = tuple(broken[:1])
    if not broken:
        findings = Judge(evidence, norms, layers, seed).findings()
    images: dict[Loader, int] = {"train": len(train)}
    if evaluation is not None:
        images["eval"] = len(evaluation)
    return Diagnosis(
        batch_size=train.batch_size,
        images=images,
        readings=tuple(_readings(evidence)),
        layers=layers,
        findings=findings,
        notes=(*notes, *_notes(evidence, layers, findings, seed)),
        seconds=perf_counter() - begun,
        population={
            name: pool
            for name, pool in evidence.own.pools.items()
            if pool.count and bool(pool.variance.isfinite().all())
        },
    )


def _sizes(train: Collected, asked: Sequence[int] | None) -> tuple[list[int], list[str]]:
    """Batch sizes other than the loader's own, ascending; notes on what had to be left out."""
    own, most = train.batch_size, len(train)
    if asked is None:
        # Four batches at least: fewer are no sample of batches.
        large = max(REFERENCE, 4 * own)
        return ([large] if large <= most // 4 else []), []
    over = sorted({size for size in asked if size > most})
    notes = [f"batches of {size:,} are left out: {most:,} images" for size in over]
    return sorted({size for size in asked if own != size <= most}), notes


def _layer(name: str, norm: _BatchNorm, evidence: Evidence) -> LayerReading:
    pool = evidence.own.pools.get(name)
    used = pool is None or pool.count > 0
    tracks = norm.track_running_stats
    tracked = norm.num_batches_tracked
    updates = None if tracked is None else int(tracked)
    moving = updates is not None and norm.momentum is not None
    error: dict[str, float] = {}
    dead = under_eps = torch.zeros(0)
    if pool is not None and pool.count:
        error = statistics_error(norm, pool)
        dead, under_eps = channels(pool.mean, pool.variance, norm.eps)
    return LayerReading(
        name=name,
        kind=type(norm).__name__,
        channels=norm.num_features,
        tracks=tracks,
        used=used,
        momentum=norm.momentum,
        eps=norm.eps,
        updates=updates,
        # A count of 0 says nothing: conversions and old files have none.
        initial_weight=(1.0 - cast(float, norm.momentum)) ** updates
        if moving and updates
        else None,
        mean_error=error.get("mean"),
        variance_error=error.get("variance"),
        blame=evidence.blame.get(name),
        dead=int(dead.sum()),
        under_eps=int(under_eps.sum()),
    )


def _readings(evidence: Evidence) -> list[Score]:
    own = evidence.train.batch_size

    def reading(kind: Kind, size: int | None, found: Predictions, loader: Loader) -> Score:
        return Score(
            loader=loader,
            statistics=kind,
            batch_size=size,
            images=len(found.losses),
            loss=found.loss,
            accuracy=found.accuracy,
        )

    found = [
        reading("running", None, evidence.running, "train"),
        reading("batch", own, evidence.batch, "train"),
    ]
    for size, there in evidence.shuffled.items():
        found += [
            reading("shuffled", size, there.predictions, "train"),
            reading("population", size, evidence.population[size], "train"),
        ]
    if evidence.eval_running and evidence.eval_shuffled and evidence.eval_population:
        found += [
            reading("running", None, evidence.eval_running, "eval"),
            reading("shuffled", own, evidence.eval_shuffled.predictions, "eval"),
            reading("population", own, evidence.eval_population, "eval"),
        ]
    return found


def _notes(
    evidence: Evidence,
    layers: Sequence[LayerReading],
    findings: Sequence[Finding],
    seed: int,
) -> list[str]:
    """What a reader of the figures has to know."""
    notes = []
    train = evidence.train
    if not layers:
        notes.append(
            "no layer depends on batch statistics: the model has no BatchNorm layer, and what "
            "differs between train() and eval() is something else (dropout?)"
        )
    unused = [each.name for each in layers if not each.used]
    if unused:
        notes.append(f"the forward pass does not reach {', '.join(unused[:5])}")
    if len(train) < ENOUGH_IMAGES and layers:
        notes.append(
            f"population statistics of {len(train):,} images are rough: give {ENOUGH_IMAGES:,} "
            "or more"
        )
    named = {each.name for each in findings}
    if layers and not named & {"non-iid-batches", "non-finite"}:
        if homogeneity(train.y, train.sizes, seed).sorted:
            notes.append(
                "the training loader's batches hold fewer classes than shuffled ones would; this "
                "network does not depend on it. If it is not the loader that was trained with, "
                "all is well"
            )
        if harms(evidence.recalibrated, evidence.running):
            notes.append(
                "running statistics are better than the population's: the network was trained on "
                "them (frozen BatchNorm?). Do not recalibrate"
            )
    if layers and evidence.eval is None:
        notes.append("one loader only: a shift between two of them was not looked for")
    return notes
