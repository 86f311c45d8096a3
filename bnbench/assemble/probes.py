"""The optional measurements of a run: after which steps, on which images, in which batches.

Imported only for runs that have some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, assert_never

import torch
from torch import Tensor

from bnbench.assemble import inputs
from bnbench.assemble.inputs import Announce, generator
from bnbench.config import schema
from bnbench.data import batches as data_batches
from bnbench.data import shifts
from bnbench.data.dataset import Images
from bnbench.events import Histogram, Reading
from bnbench.models.recipe import normalization_layers
from bnbench.probes import (
    activation_drift,
    batch_noise,
    decomposition,
    effective_lr,
    gap_by_layer,
    gradient_shift,
    histograms,
    landscape,
    running_error,
    shifted_images,
    stand_in,
    step_stability,
)
from bnbench.probes.statistics import Batch, Sample, batch_norm_layers
from bnbench.train import Probe, Run

Read: TypeAlias = Callable[[int], Sequence[Reading | Histogram]]

MOST_OTHERS = 4096
"""From how many images the others of a batch are drawn, at most: more make no difference."""

BATCHES_AT_LEAST = 4
"""Training batches in "all images at once", at least, so that it differs from a batch."""


class LeftOutError(Exception):
    """Why a probe cannot read this run; the run goes on without it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a run that probes look at."""

    images: inputs.RunImages
    run: Run

    @property
    def config(self) -> schema.RunConfig:
        """The run's configuration."""
        return self.images.config

    @property
    def training(self) -> stand_in.AsInTraining:
        """How the network runs in training. Raises LeftOutError where it cannot be copied."""
        reason = stand_in.cannot_be_copied(self.run.model)
        if reason is not None:
            raise LeftOutError(reason)
        return stand_in.AsInTraining(
            normalization=tuple(normalization_layers(self.run.model)),
            reseed=self.run.reseed,
            autocast=self.run.autocast,
        )

    def sample(
        self, probe: str, split: Literal["train", "val"], images: int, whole: int | None = None
    ) -> Sample:
        """`images` of a split, rounded up to groups of `whole` as far as there are enough; None:
        of as many as belong together in training.

        A stratified sample of the probe's own, the same in every setup; neighbours share batches
        as in training. Raises LeftOutError where there are no validation images.
        """
        if split == "val" and not len(self.images.validation):
            raise LeftOutError("it reads validation images, and data.validation_size is 0")
        purpose, whole = ("probe", probe, split), whole or self.images.whole
        chosen, _ = self.images.stratified(split, [images], *purpose, whole=whole)
        return self.images.sample(split, chosen)

    def batches(self, probe: str, count: int) -> list[Batch]:
        """Training batches of the probe's own, without augmentation."""
        size = self.config.data.batch_size
        sample = self.sample(probe, "train", count * size, size)
        return [batch for batch in sample.batches(size) if len(batch[1]) == size][:count]

    def lr(self, step: int) -> float:
        """The rate of the step that comes after `step` steps, of the last one at the end."""
        return self.run.lr_at(min(step, self.run.total_steps - 1))

    def require_trained_layers(self) -> None:
        """Raise LeftOutError where no weights are trained."""
        if not stand_in.trained_layers(self.run.model):
            raise LeftOutError("no convolution or linear layer of the network is trained")


def read_after(total: int, evaluations: int, every: int) -> frozenset[int]:
    """After which steps a probe reads: before the first step, every n-th evaluation, at the end."""
    steps = sorted(inputs.evaluation_steps(total, evaluations))
    return frozenset({0, *steps[every - 1 :: every], total})


def make_probes(parts: Parts, announce: Announce) -> dict[str, Probe]:
    """The probes of a run, by name. What cannot be measured is left out, and `announce` is told."""
    found: dict[str, Probe] = {}
    for name, settings in parts.config.probes.chosen().items():
        memory: dict[str, Tensor] = {}
        try:
            read = _reader(name, settings, parts, memory)
        except LeftOutError as reason:
            announce(f"note: probes.{name} is left out of setup {parts.config.setup}: {reason}")
            continue
        total = parts.run.total_steps
        when = read_after(total, parts.config.train.evaluations, settings.every)
        if isinstance(settings, schema.ShiftedImagesProbe):
            when = frozenset({total})  # test images are looked at once
        found[name] = Probe(read_after=when, read=read, memory=memory)
    return found


def _reader(
    name: str, settings: schema.ProbeConfig, parts: Parts, memory: dict[str, Tensor]
) -> Read:
    """What reads a probe, given the number of steps done."""
    model = parts.run.model
    match settings:
        case schema.RunningErrorProbe():
            population = parts.sample(name, "train", settings.images)
            return lambda _: running_error.read(model, parts.images.how, population)
        case schema.GapByLayerProbe():
            images = parts.sample(name, "val", settings.images)
            return lambda _: gap_by_layer.read(model, parts.images.how, images)
        case schema.DecompositionProbe():
            count = max(settings.images, BATCHES_AT_LEAST * inputs.norm_batch_size(parts.config))
            train = parts.sample(name, "train", count)
            val = parts.sample(name, "val", settings.images)
            sizes = settings.norm_batch_sizes
            return lambda _: decomposition.read(model, parts.images.how, sizes, train, val)
        case schema.BatchNoiseProbe():
            return _batch_noise(name, settings, parts)
        case schema.ActivationDriftProbe():
            how, size, optimizer = parts.training, parts.config.data.batch_size, parts.run.optimizer
            # Whole training batches: the layers themselves cut them into chunks.
            most = len(parts.images.train) // size * size
            images = parts.sample(name, "train", min(settings.images, most), size)
            return lambda step: activation_drift.read(
                model, optimizer, how, images, size, parts.lr(step), memory, step
            )
        case schema.GradientShiftProbe():
            parts.require_trained_layers()
            how, (batch,), optimizer = parts.training, parts.batches(name, 1), parts.run.optimizer
            return lambda step: gradient_shift.read(
                model, optimizer, how, batch, parts.lr(step), step
            )
        case schema.LandscapeProbe():
            parts.require_trained_layers()
            (batch,), how = parts.batches(name, 1), parts.training
            grids = settings.steps, settings.relative_steps
            return lambda step: landscape.read(model, how, batch, *grids, step)
        case schema.StepStabilityProbe():
            how, batches = parts.training, parts.batches(name, settings.batches)
            return lambda step: step_stability.read(model, how, batches, settings.steps, step)
        case schema.EffectiveLrProbe():
            parts.require_trained_layers()
            how, (batch,) = parts.training, parts.batches(name, 1)
            return lambda step: effective_lr.read(model, how, batch, parts.lr(step), step)
        case schema.HistogramsProbe():
            how, (batch,) = parts.training, parts.batches(name, 1)
            return lambda step: histograms.read(model, how, batch, step)
        case schema.ShiftedImagesProbe():
            samples = _shifted(name, settings.images, parts)
            return lambda _: shifted_images.read(model, parts.images.how, samples)
        case _:
            assert_never(settings)


def _shifted(name: str, count: int, parts: Parts) -> dict[str, Sample]:
    """The same test images as they are and under each shift, in batches as in training."""
    places, _ = parts.images.stratified("test", [count], "probe", name, "test")
    chosen, every = Images(*parts.images.dataset.test.at(places)), torch.arange(len(places))

    def batches(shift: str, size: int) -> Iterator[Batch]:
        seen = chosen
        if shift in shifts.SHIFTS:  # made when read: no copy of them is kept
            random = generator(parts.config.seed, "probe", name, shift)
            pixels = shifts.shifted(chosen.pixels, *shifts.SHIFTS[shift], random)
            seen = Images(pixels, chosen.labels)
        standardize, device = parts.images.standardize, parts.images.device
        return data_batches.chunks(seen, every, size=size, standardize=standardize, device=device)

    return {
        shift: Sample(split="test", images=len(places), batches=partial(batches, shift))
        for shift in (shifted_images.UNSHIFTED, *shifts.SHIFTS)
    }


def _batch_noise(name: str, settings: schema.BatchNoiseProbe, parts: Parts) -> Read:
    images, model = parts.images, parts.run.model
    available, unit = len(images.train), images.whole
    fixed = min(settings.images, available - unit)
    chosen = images.train
    draws: list[tuple[Tensor, Tensor]] = []
    if batch_norm_layers(model):
        if fixed < 2:
            raise LeftOutError(
                f"a batch of {unit} of {available} training images leaves no other images to draw"
            )
        others = min(available - fixed, max(MOST_OTHERS, unit))
        _, every = images.stratified("train", [fixed], "probe", name, "images", together=1)
        chosen = every[: fixed + others]
        labels = images.dataset.train.labels[chosen]
        draw = generator(parts.config.seed, "probe", name, "companions")
        for _ in range(settings.companions):
            positions, places = batch_noise.draw_batches(fixed, others, unit, draw)
            order = inputs.by_class(labels[positions], images.together)
            draws.append((positions[order], order.argsort()[places]))
    return lambda _: batch_noise.read(
        model, images.how, draws, lambda positions: images.sample("train", chosen[positions])
    )
