"""The optional measurements of a run: when, on which images, in which company."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from bnbench import data, probes
from bnbench.assemble.dataset import Announce
from bnbench.assemble.evaluation import (
    Part,
    autocast,
    evaluation_steps,
    norm_batch_size,
    ordered,
)
from bnbench.assemble.random import generator
from bnbench.config import schema
from bnbench.events import Probe
from bnbench.models.normalization import normalization_layers
from bnbench.optim import LearningRate
from bnbench.probes import Where
from bnbench.train import Guest, Read

MOST_OTHERS = 4096
"""Images that companions are drawn from, at most: as many as make no difference."""

BATCHES_AT_LEAST = 4
"""Training batches behind "all images at once", so that it differs from a batch."""


class LeftOutError(Exception):
    """Why a probe cannot read this run; the run goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """The parts of a run that probes look at."""

    config: schema.RunConfig
    images: data.Images
    train_indices: Tensor
    validation_indices: Tensor
    standardize: data.Standardize
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    lr_at: LearningRate
    reseed: Callable[[int], None]
    steps: int

    @property
    def chunk(self) -> int:
        """Images that share batch statistics in training."""
        return norm_batch_size(self.config)

    @property
    def how(self) -> probes.Discrepancy:
        """How images are passed under each kind of statistics."""
        return probes.Discrepancy(
            norm_batch_size=self.chunk,
            pass_size=self.config.data.eval_batch_size,
            autocast=autocast(self.config, self.device),
        )

    @property
    def as_in_training(self) -> probes.AsInTraining:
        """How the network runs in training. Raises LeftOutError where none can stand in for it."""
        reason = probes.cannot_be_copied(self.model)
        if reason is not None:
            raise LeftOutError(reason)
        return probes.AsInTraining(
            normalization=tuple(normalization_layers(self.model)),
            reseed=self.reseed,
            autocast=autocast(self.config, self.device),
        )

    def sample(
        self, probe: str, split: Literal["train", "val"], images: int, whole: int
    ) -> probes.Sample:
        """`images` of a split, rounded up to groups of `whole` as far as there are enough.

        A stratified sample of the probe's own, the same in every setup; neighbours are companions
        as in training.
        """
        indices = self.train_indices if split == "train" else self.validation_indices
        count = min(-(-images // whole) * whole, len(indices))
        order = ordered(
            self.images.labels[indices],
            (count,),
            generator(self.config.seed, "probe", probe, split),
            by_class=self.config.data.order != "shuffled",
        )
        part = Part(split, self.images, indices[order])
        return part.beginning(count, self.standardize, self.device)

    def batches(self, probe: str, count: int) -> list[tuple[Tensor, Tensor]]:
        """Training batches of the probe's own, without augmentation."""
        size = self.config.data.batch_size
        sample = self.sample(probe, "train", count * size, size)
        return [batch for batch in sample.batches(size) if len(batch[1]) == size][:count]

    def lr(self, where: Where) -> float:
        """The rate of the step that comes next, of the last one at the end."""
        return self.lr_at(min(where["step"], self.steps - 1))

    def trained(self) -> None:
        """Raise LeftOutError where no weights are trained."""
        if not probes.trained_layers(self.model):
            raise LeftOutError("no convolution or linear layer of the network is trained")


def read_after(total: int, evaluations: int, every: int) -> frozenset[int]:
    """After which steps a probe reads: before the first step, every n-th evaluation, at the end."""
    steps = sorted(evaluation_steps(total, evaluations))
    return frozenset({0, *steps[every - 1 :: every], total})


def make_guests(run: Ingredients, announce: Announce) -> dict[str, Guest]:
    """The probes of a run, by name. What cannot be measured is left out, and `announce` is told."""
    guests: dict[str, Guest] = {}
    for name, settings in run.config.probes.chosen().items():
        memory: dict[str, Tensor] = {}
        try:
            read = _reader(name, settings, run, memory)
        except LeftOutError as reason:
            announce(f"note: probes.{name} is left out of setup {run.config.setup}: {reason}")
            continue
        when = read_after(run.steps, run.config.train.evaluations, settings.every)
        guests[name] = Guest(read_after=when, read=read, memory=memory)
    return guests


def _reader(
    name: str, settings: schema.ProbeConfig, run: Ingredients, memory: dict[str, Tensor]
) -> Read:
    match settings:
        case schema.RunningErrorProbe():
            population = run.sample(name, "train", settings.images, run.chunk)
            error = partial(probes.running_error, run.model, run.how, population=population)
            return lambda where: error(where=where)
        case schema.GapByLayerProbe():
            images = run.sample(name, "val", settings.images, run.chunk)
            blame = partial(probes.gap_by_layer, run.model, run.how, images=images)
            return lambda where: blame(where=where)
        case schema.DecompositionProbe():
            count = max(settings.images, BATCHES_AT_LEAST * run.chunk)
            parts = partial(
                probes.decomposition,
                run.model,
                run.how,
                norm_batch_sizes=settings.norm_batch_sizes,
                train=run.sample(name, "train", count, run.chunk),
                validation=run.sample(name, "val", settings.images, run.chunk),
            )
            return lambda where: parts(where=where)
        case schema.BatchNoiseProbe():
            return _batch_noise(name, settings, run)
        case schema.ActivationDriftProbe():
            drift = partial(
                probes.activation_drift,
                run.model,
                run.as_in_training,
                images=_whole_batches(run, name, settings.images),
                batch_size=run.config.data.batch_size,
                memory=memory,
            )
            return lambda where: drift(where=where)
        case schema.GradientShiftProbe():
            run.trained()
            how, (batch,) = run.as_in_training, run.batches(name, 1)
            shift = partial(probes.gradient_shift, run.model, run.optimizer, how, batch=batch)
            return lambda where: shift(lr=run.lr(where), where=where)
        case schema.LandscapeProbe():
            run.trained()
            (batch,) = run.batches(name, 1)
            smoothness = partial(
                probes.landscape,
                run.model,
                run.as_in_training,
                batch=batch,
                steps=settings.steps,
                relative_steps=settings.relative_steps,
            )
            return lambda where: smoothness(where=where)
        case schema.StepStabilityProbe():
            stability = partial(
                probes.step_stability,
                run.model,
                run.as_in_training,
                batches=run.batches(name, settings.batches),
                steps=settings.steps,
            )
            return lambda where: stability(where=where)
        case schema.EffectiveLrProbe():
            run.trained()
            how, (batch,) = run.as_in_training, run.batches(name, 1)
            rates = partial(probes.effective_lr, run.model, how, batch=batch)
            return lambda where: rates(lr=run.lr(where), where=where)
        case schema.HistogramsProbe():
            how, (batch,) = run.as_in_training, run.batches(name, 1)
            spread = partial(probes.histograms, run.model, how, batch=batch)
            return lambda where: spread(where=where)
        case _:
            assert_never(settings)


def _whole_batches(run: Ingredients, name: str, images: int) -> probes.Sample:
    """A sample of whole training batches: the layers themselves cut them into chunks."""
    size = run.config.data.batch_size
    most = len(run.train_indices) // size * size
    return run.sample(name, "train", min(images, most), size)


def _batch_noise(
    name: str, settings: schema.BatchNoiseProbe, run: Ingredients
) -> Callable[[Where], list[Probe]]:
    there, random = len(run.train_indices), partial(generator, run.config.seed, "probe", name)
    fixed = min(settings.images, there - run.chunk)
    depends = bool(probes.batch_norm_layers(run.model))
    if depends and fixed < 2:
        raise LeftOutError(
            f"a batch of {run.chunk} of {there} training images leaves no other company"
        )
    sets: list[tuple[Tensor, Tensor]] = []
    chosen = run.train_indices
    if depends:
        others = min(there - fixed, max(MOST_OTHERS, run.chunk))
        stratified = ordered(
            run.images.labels[run.train_indices], (fixed,), random("images"), by_class=False
        )
        chosen = run.train_indices[stratified[: fixed + others]]
        draw = random("companions")
        sets = [
            probes.companionship(fixed, others, run.chunk, draw) for _ in range(settings.companions)
        ]

    def sample_of(positions: Tensor) -> probes.Sample:
        at = chosen[positions]
        return probes.Sample(
            split="train", images=len(at), batches=lambda size: _chunks(run, at, size)
        )

    noise = partial(probes.batch_noise, run.model, run.how, sets=sets, sample_of=sample_of)
    return lambda where: noise(where=where)


def _chunks(run: Ingredients, indices: Tensor, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    return data.chunks(
        run.images, indices, size=size, standardize=run.standardize, device=run.device
    )
