"""What is known of a network once it is measured; `passes` measures, `findings` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from bnbench.diagnosis.batches import Collected
from bnbench.diagnosis.predictions import Predictions
from bnbench.diagnosis.route import Forward
from bnbench.diagnosis.survey import Pools, Survey
from bnbench.diagnosis.task import Score, Task
from bnbench.guard import ForeignCode
from bnbench.probes.statistics import Autocast


@dataclass(frozen=True, slots=True, eq=False)
class InBatches:
    """One loader's images in random batches of one size.

    `shuffled`: predictions under the statistics of these batches. `pools`: statistics of all of
    them. `population`: predictions under the training images' pools; `by_call`: under those of each
    call, where a layer is called several times in a forward pass.
    """

    shuffled: Predictions
    population: Predictions
    by_call: Predictions | None
    pools: Pools


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One loader's examples; `sizes`: by batch size, the training loader's own first.

    Of a network without running statistics, all kinds are the same.
    """

    images: Collected
    running: Predictions
    sizes: dict[int, InBatches]

    @property
    def own(self) -> InBatches:
        """In random batches of the training loader's size."""
        return next(iter(self.sizes.values()))


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """What a file holds: `content`, and the state dict within it, the same object."""

    name: str
    content: Any
    state: MutableMapping[str, Tensor]


@dataclass(slots=True, eq=False)
class Target:
    """A model with its loaders, and what is known of how it came to be.

    `live`: the model that was trained, where this one's weights are an average of its; `averages`:
    what averages them, where this model is wrapped in it. `steps`: of the optimizer. `checkpoint`:
    what it was loaded from; `lacking`: layers without statistics there. `code`: what was entered to
    make model and loaders.
    """

    model: nn.Module
    loader: Iterable[Any]
    eval_loader: Iterable[Any] | None = None
    forward: Forward | None = None
    score: Score | None = None
    live: nn.Module | None = None
    steps: int | None = None
    autocast: Autocast = nullcontext
    checkpoint: SavedModel | None = None
    notes: list[str] = field(default_factory=list)
    code: ForeignCode = field(default_factory=ForeignCode)
    averages: str = ""
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything that was measured; `findings` reads it.

    `batch`: under the statistics of the training loader's batches as they come. `again`: in other
    random batches of the same size, where that was asked for. `blame`: nats by layer. `running`:
    what takes images under the network's running statistics as they are then. `modes`: the rest of
    the network in training mode. `of_live`: the layers' statistics with the live model's weights.
    """

    target: Target
    task: Task
    train: Measured
    eval: Measured | None
    batch: Predictions
    again: Predictions | None
    blame: dict[str, float]
    survey: Survey
    modes: Modes
    running: Callable[[Collected], Predictions]
    of_live: Pools | None

    @property
    def measured(self) -> list[Measured]:
        """Of each loader."""
        return [self.train] if self.eval is None else [self.train, self.eval]


@dataclass(frozen=True, slots=True, eq=False)
class Modes:
    """The same examples in the same batches under batch statistics: `evaluation`: the rest of the
    network in eval mode; `training`: in training mode, without dropout, None where that gives
    something else every time or another kind of output. `noisy`: the layers' statistics with
    dropout, None where there is none; `still`: without. `by_function`: whether forward()
    normalizes by statistics that are in no layer: calls F.batch_norm, or moves them in training."""

    evaluation: Predictions
    training: Predictions | None
    noisy: Pools | None
    still: Pools
    moved: tuple[str, ...]
    by_function: bool
