"""The optional measurements of a run: after which steps, on which images, in which batches.

Imported only for runs that have some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, assert_never

import torch
from torch import Tensor, nn

from bnbench.assemble.evaluation import (
    autocast,
    evaluation_steps,
    norm_batch_size,
    ordered,
    sample_of,
)
from bnbench.assemble.inputs import Announce, generator
from bnbench.config import schema
from bnbench.data.batches import Standardize
from bnbench.data.dataset import Images
from bnbench.events import Histogram, Reading
from bnbench.models.normalization import normalization_layers
from bnbench.optim import LearningRate
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
    stand_in,
    step_stability,
)
from bnbench.probes.discrepancy import Batch, Discrepancy, Sample
from bnbench.probes.statistics import batch_norm_layers
from bnbench.train import Probe

Read: TypeAlias = Callable[[int], Sequence[Reading | Histogram]]

MOST_OTHERS = 4096
"""From how many images the others of a batch are drawn, at most: more make no difference."""

BATCHES_AT_LEAST = 4
"""Training batches in "all images at once", at least, so that it differs from a batch."""


class LeftOutError(Exception):
    """Why a probe cannot read this run; the run goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a run that probes look at."""

    config: schema.RunConfig
    images: Images
    train_indices: Tensor
    validation_indices: Tensor
    standardize: Standardize
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
    def how(self) -> Discrepancy:
        """How images are passed under each kind of statistics."""
        return Discrepancy(
            norm_batch_size=self.chunk,
            pass_size=self.config.data.eval_batch_size,
            autocast=autocast(self.config, self.device),
        )

    @property
    def training(self) -> stand_in.AsInTraining:
        """How the network runs in training. Raises LeftOutError where it cannot be copied."""
        reason = stand_in.cannot_be_copied(self.model)
        if reason is not None:
            raise LeftOutError(reason)
        return stand_in.AsInTraining(
            normalization=tuple(normalization_layers(self.model)),
            reseed=self.reseed,
            autocast=autocast(self.config, self.device),
        )

    def sample(self, probe: str, split: Literal["train", "val"], images: int, whole: int) -> Sample:
        """`images` of a split, rounded up to groups of `whole` as far as there are enough.

        A stratified sample of the probe's own, the same in every setup; neighbours share batches
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
        return self.sample_at(indices[order[:count]], split)

    def sample_at(self, indices: Tensor, split: Literal["train", "val"] = "train") -> Sample:
        """The images at these places of the dataset."""
        return sample_of(split, self.images, indices, self.standardize, self.device)

    def batches(self, probe: str, count: int) -> list[Batch]:
        """Training batches of the probe's own, without augmentation."""
        size = self.config.data.batch_size
        sample = self.sample(probe, "train", count * size, size)
        return [batch for batch in sample.batches(size) if len(batch[1]) == size][:count]

    def lr(self, step: int) -> float:
        """The rate of the step that comes after `step` steps, of the last one at the end."""
        return self.lr_at(min(step, self.steps - 1))

    def require_trained_layers(self) -> None:
        """Raise LeftOutError where no weights are trained."""
        if not stand_in.trained_layers(self.model):
            raise LeftOutError("no convolution or linear layer of the network is trained")


def read_after(total: int, evaluations: int, every: int) -> frozenset[int]:
    """After which steps a probe reads: before the first step, every n-th evaluation, at the end."""
    steps = sorted(evaluation_steps(total, evaluations))
    return frozenset({0, *steps[every - 1 :: every], total})


def make_probes(run: Parts, announce: Announce) -> dict[str, Probe]:
    """The probes of a run, by name. What cannot be measured is left out, and `announce` is told."""
    found: dict[str, Probe] = {}
    for name, settings in run.config.probes.chosen().items():
        memory: dict[str, Tensor] = {}
        try:
            read = _reader(name, settings, run, memory)
        except LeftOutError as reason:
            announce(f"note: probes.{name} is left out of setup {run.config.setup}: {reason}")
            continue
        when = read_after(run.steps, run.config.train.evaluations, settings.every)
        found[name] = Probe(read_after=when, read=read, memory=memory)
    return found


def _reader(name: str, settings: schema.ProbeConfig, run: Parts, memory: dict[str, Tensor]) -> Read:
    """What reads a probe, given the number of steps done."""
    model = run.model
    match settings:
        case schema.RunningErrorProbe():
            population = run.sample(name, "train", settings.images, run.chunk)
            return lambda _: running_error.read(model, run.how, population)
        case schema.GapByLayerProbe():
            images = run.sample(name, "val", settings.images, run.chunk)
            return lambda _: gap_by_layer.read(model, run.how, images)
        case schema.DecompositionProbe():
            count = max(settings.images, BATCHES_AT_LEAST * run.chunk)
            train = run.sample(name, "train", count, run.chunk)
            val = run.sample(name, "val", settings.images, run.chunk)
            sizes = settings.norm_batch_sizes
            return lambda _: decomposition.read(model, run.how, sizes, train, val)
        case schema.BatchNoiseProbe():
            return _batch_noise(name, settings, run)
        case schema.ActivationDriftProbe():
            how, size = run.training, run.config.data.batch_size
            # Whole training batches: the layers themselves cut them into chunks.
            most = len(run.train_indices) // size * size
            images = run.sample(name, "train", min(settings.images, most), size)
            return lambda step: activation_drift.read(model, how, images, size, memory, step)
        case schema.GradientShiftProbe():
            run.require_trained_layers()
            how, (batch,), optimizer = run.training, run.batches(name, 1), run.optimizer
            return lambda step: gradient_shift.read(
                model, optimizer, how, batch, run.lr(step), step
            )
        case schema.LandscapeProbe():
            run.require_trained_layers()
            (batch,), how = run.batches(name, 1), run.training
            grids = settings.steps, settings.relative_steps
            return lambda step: landscape.read(model, how, batch, *grids, step)
        case schema.StepStabilityProbe():
            how, batches = run.training, run.batches(name, settings.batches)
            return lambda step: step_stability.read(model, how, batches, settings.steps, step)
        case schema.EffectiveLrProbe():
            run.require_trained_layers()
            how, (batch,) = run.training, run.batches(name, 1)
            return lambda step: effective_lr.read(model, how, batch, run.lr(step), step)
        case schema.HistogramsProbe():
            how, (batch,) = run.training, run.batches(name, 1)
            return lambda step: histograms.read(model, how, batch, step)
        case _:
            assert_never(settings)


def _batch_noise(name: str, settings: schema.BatchNoiseProbe, run: Parts) -> Read:
    available = len(run.train_indices)
    random = partial(generator, run.config.seed, "probe", name)
    fixed = min(settings.images, available - run.chunk)
    draws: list[tuple[Tensor, Tensor]] = []
    chosen = run.train_indices
    if batch_norm_layers(run.model):
        if fixed < 2:
            raise LeftOutError(
                f"a batch of {run.chunk} of {available} training images leaves no other images "
                "to draw"
            )
        others = min(available - fixed, max(MOST_OTHERS, run.chunk))
        order = ordered(
            run.images.labels[run.train_indices], (fixed,), random("images"), by_class=False
        )
        chosen = run.train_indices[order[: fixed + others]]
        draw = random("companions")
        draws = [
            batch_noise.draw_batches(fixed, others, run.chunk, draw)
            for _ in range(settings.companions)
        ]
    return lambda _: batch_noise.read(
        run.model, run.how, draws, lambda positions: run.sample_at(chosen[positions])
    )
