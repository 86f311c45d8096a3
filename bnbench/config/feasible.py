"""What cannot train, by arithmetic on shapes and by reading, not running, custom files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from bnbench.config import schema
from bnbench.config.budget import total_steps
from bnbench.config.custom import trouble
from bnbench.config.datasets import DatasetFacts, facts
from bnbench.config.faults import counted, shortened
from bnbench.errors import DataError

RESNETS = ("resnet", "resnext", "wide_resnet")  # torchvision/models/resnet.py


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


def obstacles(config: schema.RunConfig) -> list[Obstacle]:
    """Everything that keeps a valid configuration from training."""
    try:
        dataset = facts(config.data)
    except DataError as error:
        return [Obstacle(("data.root", "data.dataset"), f"data.root: {error.what}", error.do)]
    result = [
        *_custom(config),
        *_network(config),
        *_norm(config),
        *_together(config),
        *_splits(config, dataset),
    ]
    if not result:
        result.extend(_batches(config, train_images_left(config, dataset)))
    if not result:
        result.extend(_statistics(config, dataset))
    return result


def train_images_left(config: schema.RunConfig, dataset: DatasetFacts) -> int:
    """Training images after the hold-out and the subset."""
    return config.data.train_size or dataset.train_images - config.data.validation_size


def planned_steps(config: schema.RunConfig) -> int:
    """Optimizer steps of a feasible run."""
    left = train_images_left(config, facts(config.data))
    return total_steps(config.train, left, config.data.batch_size, config.data.drop_last)


def opaque(config: schema.RunConfig) -> bool:
    """Whether only building shows if network and normalization fit together."""
    return isinstance(config.model, schema.TorchvisionModel | schema.CustomModel) or isinstance(
        config.norm, schema.CustomNormConfig
    )


def _custom(config: schema.RunConfig) -> Iterator[Obstacle]:
    for name, block in (("model", config.model), ("norm", config.norm)):
        if isinstance(block, schema.CustomModel | schema.CustomNormConfig):
            wrong = trouble(block.target)
            if wrong:
                message, hint = wrong
                yield Obstacle(
                    (f"{name}.target", f"{name}.kind"), f"{name}.target: {message}", hint
                )


def _network(config: schema.RunConfig) -> Iterator[Obstacle]:
    model, norm = config.model, config.norm
    match model:
        case schema.ResNetModel():
            if model.depth < 8 or (model.depth - 2) % 6:
                yield Obstacle(
                    ("model.depth", "model.kind"),
                    f"model.depth: {model.depth} is not 6n + 2",
                    "8, 14, 20, 32, 44, 56, 110",
                )
            if model.zero_init_last_norm:
                yield from _last_norms(model, norm)
        case schema.TorchvisionModel():
            if model.stem == "small" and not model.name.startswith(RESNETS):
                yield Obstacle(
                    ("model.stem", "model.name", "model.kind"),
                    f'model.stem: "{shortened(model.name)}" has no small stem, only '
                    "torchvision's resnets have one",
                    "write model.stem: imagenet",
                )
        case _:
            pass


def _last_norms(model: schema.ResNetModel, norm: schema.NormConfig) -> Iterator[Obstacle]:
    hint = None
    if isinstance(norm, schema.NoNorm | schema.ScaledWSConfig):
        return  # there is nothing to start at 0, and nothing happens
    if isinstance(norm, schema.InsteadOfActivation):
        why = f"{norm.kind} is the activation as well, and no branch ends in it"
    elif model.variant == "pre":
        why = "in variant pre a branch ends in a convolution"
        hint = "write model.variant: post"
    elif norm.placement == "after":
        why = "with placement after a branch ends in a convolution"
        hint = "write norm.placement: before"
    elif getattr(norm, "affine", True) is False:
        why = "without norm.affine there is no γ"
        hint = "write norm.affine: true"
    else:
        return
    yield Obstacle(("model.zero_init_last_norm",), f"model.zero_init_last_norm: {why}", hint)


def _norm(config: schema.RunConfig) -> Iterator[Obstacle]:
    norm, model = config.norm, config.model
    if isinstance(norm, schema.BatchRenormConfig):
        for key, value in (("r_open", norm.r_open), ("d_open", norm.d_open)):
            if norm.correct_from > value:
                yield Obstacle(
                    (f"norm.{key}", "norm.correct_from", "norm.kind"),
                    f"norm.{key}: {value:g} lies before norm.correct_from {norm.correct_from:g}",
                    f"the bounds open from correct_from to {key}",
                )
    if isinstance(norm, schema.GroupWSConfig | schema.ScaledWSConfig):
        inner = model.widths[:-1] if isinstance(model, schema.MLPModel) else ()
        if 1 in inner or (isinstance(model, schema.ResNetModel) and model.width == 1):
            key = _width_key(model)
            yield Obstacle(
                (key, "norm.kind"),
                f"{key}: behind 1 channel a filter has one weight, which {norm.kind} would make 0",
            )


def _together(config: schema.RunConfig) -> Iterator[Obstacle]:
    """What does not go with the normalization."""
    model, norm = config.model, config.norm
    if isinstance(model, schema.TorchvisionModel | schema.CustomModel):
        if isinstance(
            norm,
            schema.FRNConfig
            | schema.EvoNormS0Config
            | schema.GroupWSConfig
            | schema.ScaledWSConfig,
        ):
            yield Obstacle(
                ("norm.kind", "model.kind"),
                f"norm.kind: {norm.kind} changes more than the norm layers, which is all that a "
                f"{model.kind} network lets others choose",
                "model.kind: plain, mlp and resnet take it",
            )
        elif not isinstance(norm, schema.NoNorm) and norm.placement == "after":
            yield Obstacle(
                ("norm.placement", "norm.kind", "model.kind"),
                f"norm.placement: a {model.kind} network decides itself where its norms stand",
                "leave norm.placement at before",
            )
    if config.optim.train_only == "norm":
        if isinstance(norm, schema.NoNorm | schema.ScaledWSConfig):
            yield Obstacle(
                ("optim.train_only", "norm.kind"),
                f"optim.train_only: norm.kind {norm.kind} has no γ and β to train",
            )
        elif getattr(norm, "affine", True) is False:
            yield Obstacle(
                ("optim.train_only", "norm.affine"),
                "optim.train_only: without norm.affine there is no γ and β to train",
                "write norm.affine: true",
            )


def _splits(config: schema.RunConfig, dataset: DatasetFacts) -> Iterator[Obstacle]:
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


def _batches(config: schema.RunConfig, left: int) -> Iterator[Obstacle]:
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
    if (
        not isinstance(norm, schema.BatchNormConfig | schema.GhostNormConfig)
        or norm.batch_size is None
    ):
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


def _last_batch(config: schema.RunConfig, left: int) -> int:
    rest = 0 if config.data.drop_last else left % config.data.batch_size
    return rest or config.data.batch_size


def sites(config: schema.RunConfig, dataset: DatasetFacts) -> list[Site]:
    """The smallest map of each width: what a norm of that stage sees; [] where only the network
    itself knows."""
    match config.model:
        case schema.PlainModel(widths=widths):
            result, side = [], dataset.side
            for stage, width in enumerate(widths):
                side = -(-side // 2) if stage else side  # 3×3, stride 2, padding 1
                result.append(Site(width, side))
            return result
        case schema.MLPModel(widths=widths):
            return [Site(width, 1) for width in widths]
        case schema.ResNetModel(width=width):
            half = -(-dataset.side // 2)
            return [
                Site(width, dataset.side),
                Site(2 * width, half),
                Site(4 * width, -(-half // 2)),
            ]
        case schema.TorchvisionModel() | schema.CustomModel():
            return []
        case _:
            assert_never(config.model)


def _width_key(model: schema.ModelConfig) -> str:
    return "model.width" if isinstance(model, schema.ResNetModel) else "model.widths"


def _statistics(config: schema.RunConfig, dataset: DatasetFacts) -> Iterator[Obstacle]:
    places = sites(config, dataset)
    width_key = _width_key(config.model)
    match config.norm:
        case schema.NoNorm() | schema.ScaledWSConfig() | schema.CustomNormConfig():
            return
        case schema.GroupNormConfig() | schema.GroupWSConfig() | schema.EvoNormS0Config():
            yield from _groups(config.norm.groups, places, width_key)
        case schema.InstanceNormConfig() | schema.FRNConfig():
            if (
                isinstance(config.norm, schema.InstanceNormConfig)
                and config.norm.placement == "after"
            ):
                yield Obstacle(
                    ("norm.placement", "norm.kind"),
                    "norm.placement: behind the last activation instance norm makes the mean of "
                    "each channel β, whatever the image: the head would see no image at all",
                    "write norm.placement: before",
                )
            if any(site.side == 1 for site in places):
                yield Obstacle(
                    ("norm.kind", "model.kind", width_key),
                    f"norm.kind: on a 1×1 map {config.norm.kind} has one value per channel",
                    "batch, group and layer share statistics between images or channels",
                )
        case schema.LayerNormConfig() | schema.RMSNormConfig():
            for site in places:
                if site.channels * site.side**2 == 1:
                    yield Obstacle(
                        (width_key, "norm.kind"),
                        f"{width_key}: 1 channel on a 1×1 map leaves {config.norm.kind} norm one "
                        "value",
                    )
        case (
            schema.BatchNormConfig()
            | schema.GhostNormConfig()
            | schema.BatchRenormConfig()
            | schema.FrozenNormConfig()
            | schema.NoisyNormConfig()
        ):
            if any(site.side == 1 for site in places):
                yield from _single_values(config, train_images_left(config, dataset))
        case _:
            assert_never(config.norm)


def _groups(groups: int, places: Iterable[Site], width_key: str) -> Iterator[Obstacle]:
    keys = ("norm.groups", "norm.kind", width_key)
    for site in places:
        if site.channels % groups:
            yield Obstacle(
                keys,
                f"norm.groups: {counted(site.channels, 'channel')} do not split into "
                f"{counted(groups, 'group')} ({width_key})",
            )
        elif site.channels * site.side**2 == groups:
            yield Obstacle(
                keys,
                f"norm.groups: {counted(site.channels, 'channel')} in {counted(groups, 'group')} "
                "on a 1×1 map leave one value per group",
            )


def _single_values(config: schema.RunConfig, left: int) -> Iterator[Obstacle]:
    batch = config.data.batch_size
    shared = getattr(config.norm, "batch_size", None)
    if shared == 1 or batch == 1:
        key = "norm.batch_size" if shared == 1 else "data.batch_size"
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
