"""What cannot train, by arithmetic on shapes; and what can, but should be known to be risky."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from bnbench.config.budget import total_steps
from bnbench.config.datasets import DatasetFacts, facts
from bnbench.config.faults import counted, named_setups
from bnbench.config.schema import (
    BatchNormConfig,
    GroupNormConfig,
    LayerNormConfig,
    MLPModel,
    NoNorm,
    PlainModel,
    RunConfig,
)
from bnbench.errors import DataError


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A fault that only the whole run shows; `keys` says what to look at, most telling first."""

    keys: tuple[str, ...]
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where a norm stands: channels, and the side of the map in pixels."""

    channels: int
    side: int


def obstacles(config: RunConfig) -> list[Obstacle]:
    """Everything that keeps a valid configuration from training."""
    try:
        dataset = facts(config.data)
    except DataError as error:
        return [Obstacle(("data.root", "data.dataset"), f"data.root: {error.what}", error.do)]
    result = [*_splits(config, dataset)]
    if not result:
        result.extend(_batches(config, train_images_left(config, dataset)))
    if not result:
        result.extend(_statistics(config, dataset))
    return result


def train_images_left(config: RunConfig, dataset: DatasetFacts) -> int:
    """Training images after the hold-out and the subset."""
    return config.data.train_size or dataset.train_images - config.data.validation_size


def _splits(config: RunConfig, dataset: DatasetFacts) -> Iterator[Obstacle]:
    data, pool, classes = config.data, dataset.train_images, dataset.classes
    held, wanted = data.validation_size, data.train_size
    if classes < 2:
        yield Obstacle(("data.root", "data.dataset"), "data: one class leaves nothing to learn")
    if held >= pool:
        yield Obstacle(
            ("data.validation_size", "data.train_images", "data.dataset"),
            f"data.validation_size: {held} of {pool} training images leave none to train on",
        )
    elif wanted is not None and wanted + held > pool:
        yield Obstacle(
            ("data.train_size", "data.validation_size", "data.train_images", "data.dataset"),
            f"data.train_size: {wanted} and {held} for validation are more than the {pool} "
            "training images",
            f"at most {pool - held}",
        )
    for key, size in (("train_size", wanted), ("validation_size", held)):
        if size is not None and size < classes:
            yield Obstacle(
                (f"data.{key}",), f"data.{key}: {counted(size, 'image')} for {classes} classes"
            )
    if wanted is None and 0 < pool - held < classes:
        yield Obstacle(
            ("data.validation_size",),
            f"data.validation_size: {held} of {pool} training images leave {pool - held} to "
            f"train {classes} classes on",
        )


def _batches(config: RunConfig, left: int) -> Iterator[Obstacle]:
    batch = config.data.batch_size
    if batch > left:
        yield Obstacle(
            (
                "data.batch_size",
                "data.train_size",
                "data.validation_size",
                "data.train_images",
                "data.dataset",
            ),
            f"data.batch_size: a batch of {batch} is larger than the {left} training images",
        )
    norm = config.norm
    if not isinstance(norm, BatchNormConfig) or norm.batch_size is None:
        return
    keys = ("norm.batch_size", "data.batch_size")
    if norm.batch_size > batch:
        yield Obstacle(
            keys, f"norm.batch_size: {norm.batch_size} is larger than data.batch_size {batch}"
        )
    elif batch % norm.batch_size:
        yield Obstacle(
            keys, f"norm.batch_size: {norm.batch_size} does not divide data.batch_size {batch}"
        )
    elif batch <= left and (last := _last_batch(config, left)) % norm.batch_size:
        yield Obstacle(
            ("data.drop_last", *keys),
            f"norm.batch_size: {norm.batch_size} does not divide the last batch of an epoch, "
            f"{last} of {left} images",
            "write data.drop_last: true",
        )


def _last_batch(config: RunConfig, left: int) -> int:
    rest = 0 if config.data.drop_last else left % config.data.batch_size
    return rest or config.data.batch_size


def sites(config: RunConfig, dataset: DatasetFacts) -> list[Site]:
    """The smallest map of each width: what a norm of that stage sees."""
    match config.model:
        case PlainModel(widths=widths):
            result, side = [], dataset.side
            for stage, width in enumerate(widths):
                side = -(-side // 2) if stage else side  # 3×3, stride 2, padding 1
                result.append(Site(width, side))
            return result
        case MLPModel(widths=widths):
            return [Site(width, 1) for width in widths]
        case _:
            assert_never(config.model)


def _statistics(config: RunConfig, dataset: DatasetFacts) -> Iterator[Obstacle]:
    places = sites(config, dataset)
    match config.norm:
        case NoNorm():
            return
        case GroupNormConfig(groups=groups):
            yield from _groups(groups, places)
        case LayerNormConfig():
            for site in places:
                if site.channels * site.side**2 == 1:
                    yield Obstacle(
                        ("model.widths", "norm.kind"),
                        "model.widths: 1 channel on a 1×1 map leaves layer norm one value",
                    )
        case BatchNormConfig():
            if any(site.side == 1 for site in places):
                yield from _single_values(config, train_images_left(config, dataset))
        case _:
            assert_never(config.norm)


def _groups(groups: int, places: Iterable[Site]) -> Iterator[Obstacle]:
    keys = ("norm.groups", "norm.kind", "model.widths")
    for site in places:
        if site.channels % groups:
            yield Obstacle(
                keys,
                f"norm.groups: {counted(site.channels, 'channel')} do not split into "
                f"{counted(groups, 'group')} (model.widths)",
            )
        elif site.channels * site.side**2 == groups:
            yield Obstacle(
                keys,
                f"norm.groups: {counted(site.channels, 'channel')} in {counted(groups, 'group')} "
                "on a 1×1 map leave one value per group",
            )


def _single_values(config: RunConfig, left: int) -> Iterator[Obstacle]:
    norm, batch = config.norm, config.data.batch_size
    assert isinstance(norm, BatchNormConfig)
    if norm.batch_size == 1 or batch == 1:
        key = "norm.batch_size" if norm.batch_size == 1 else "data.batch_size"
        yield Obstacle(
            (key, "norm.kind", "model.kind"),
            f"{key}: 1 image on a 1×1 map leaves batch norm one value per channel",
        )
    elif _last_batch(config, left) == 1:
        yield Obstacle(
            ("data.drop_last", "data.batch_size"),
            f"data.drop_last: the last of {left} images is a batch of its own; on a 1×1 map it "
            "leaves batch norm one value per channel",
            "write data.drop_last: true",
        )


# --- risks --------------------------------------------------------------------------------


@dataclass(slots=True)
class Risks:
    """Legal choices worth a warning, with the setups that make them."""

    decayed: dict[str, None] = field(default_factory=dict)
    alone: dict[str, None] = field(default_factory=dict)
    unsettled: dict[str, None] = field(default_factory=dict)
    worst: tuple[float, int, float] = (0.0, 0, 0.0)  # share, steps, momentum

    def add(self, config: RunConfig) -> None:
        """Looks at one feasible run."""
        norm = config.norm
        if isinstance(norm, NoNorm):
            return
        if config.optim.decay_norm_and_bias and config.optim.weight_decay > 0:
            self.decayed[config.setup] = None
        if not isinstance(norm, BatchNormConfig):
            return
        if (norm.batch_size or config.data.batch_size) == 1:
            self.alone[config.setup] = None
        if norm.momentum is None:
            return
        left = train_images_left(config, facts(config.data))
        steps = total_steps(config.train, left, config.data.batch_size, config.data.drop_last)
        if steps * norm.momentum < 1:
            self.unsettled[config.setup] = None
            share = (1 - norm.momentum) ** steps
            self.worst = max(self.worst, (share, steps, norm.momentum))

    def warnings(self) -> tuple[str, ...]:
        """One sentence each."""
        result = []
        if self.unsettled:
            share, steps, momentum = self.worst
            result.append(
                f"norm.momentum {momentum:g}: after {counted(steps, 'optimizer step')} the running "
                f"statistics are still {100 * share:.3g} % their initial value "
                f"({named_setups(self.unsettled)})"
            )
        if self.decayed:
            result.append(
                "optim.decay_norm_and_bias: weight decay pulls γ and β towards zero too "
                f"({named_setups(self.decayed)})"
            )
        if self.alone:
            result.append(
                "batch statistics over 1 image: batch norm trains as instance norm "
                f"({named_setups(self.alone)})"
            )
        return tuple(result)
