"""What cannot train, as far as numbers of images and reading custom files show it, without torch.

What layers and networks ask of each other is found by `assemble.check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from bnbench.config import schema
from bnbench.config.custom import builds, misfit, targets, trouble, weights, weights_hash
from bnbench.config.datasets import DatasetFacts, UnpreparedError, facts, total_steps
from bnbench.config.faults import named_setups
from bnbench.errors import DataError
from bnbench.wording import counted, in_words

FEW_STEPS = 5
"""A warm-up of fewer is none for momentum of 0.9, which averages over ten steps."""

INITIAL = 0.05
"""The share of the initial running statistics, (1 − momentum)^updates, that is too much: 28 updates
at 0.1 leave it."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A fault that only the whole run shows; `keys` says what to look at, most telling first."""

    keys: tuple[str, ...]
    message: str
    hint: str | None = None


def obstacles(config: schema.RunConfig) -> list[Obstacle]:
    """Everything that keeps a valid configuration from training."""
    result = [*_custom(config), *_ramps(config)]
    try:
        dataset = facts(config.data)
    except UnpreparedError:
        return result
    except DataError as error:
        key = "data.files" if isinstance(config.data, schema.CustomData) else "data.root"
        return [*result, Obstacle((key, "data.dataset"), f"{key}: {error.what}", error.do)]
    result += _splits(config, dataset)
    if not result:
        result.extend(_batches(config, train_images_left(config, dataset)))
    return result


def train_images_left(config: schema.RunConfig, dataset: DatasetFacts) -> int:
    """Training images after the hold-out and the subset."""
    return config.data.train_size or dataset.train_images - config.data.validation_size


def known(config: schema.RunConfig) -> bool:
    """Whether the images' size is: those of a function of the user's own are prepared first."""
    try:
        facts(config.data)
    except UnpreparedError:
        return False
    return True


def planned_steps(config: schema.RunConfig) -> int:
    """Optimizer steps of a feasible run."""
    left = train_images_left(config, facts(config.data))
    return total_steps(config.train, left, config.data.batch_size, config.data.drop_last)


def opaque(config: schema.RunConfig) -> bool:
    """Whether only building shows if network and normalization fit together."""
    return isinstance(config.model, schema.ForeignModel) or isinstance(
        config.norm, schema.CustomNormConfig
    )


def _custom(config: schema.RunConfig) -> Iterator[Obstacle]:
    for key, target in targets(config).items():
        kind, options = key.replace("target", "kind"), key.replace("target", "options")
        if key == "data.target":
            kind = "data.dataset"
        built = key == "data.target" or builds(config, key)
        if found := trouble(*target, "function" if built else "class"):
            yield Obstacle((key, kind), f"{key}: {found[0]}", found[1])
        elif key != "data.target" and (found := misfit(config, key)):
            yield Obstacle((options, key, kind), f"{options}: {found[0]}", found[1])
    for path in weights(config):
        try:
            weights_hash(path)
        except DataError as error:
            yield Obstacle(
                ("model.pretrained", "model.kind"), f"model.pretrained: {error.what}", error.do
            )


def _ramps(config: schema.RunConfig) -> Iterator[Obstacle]:
    norm = config.norm
    if isinstance(norm, schema.BatchRenormConfig):
        for key, value in (("r_open", norm.r_open), ("d_open", norm.d_open)):
            if norm.correct_from > value:
                yield Obstacle(
                    (f"norm.{key}", "norm.correct_from", "norm.kind"),
                    f"norm.{key}: {value:g} is before norm.correct_from {norm.correct_from:g}",
                    f"the bounds open from correct_from to {key}",
                )


def _splits(config: schema.RunConfig, dataset: DatasetFacts) -> Iterator[Obstacle]:
    data, pool, classes = config.data, dataset.train_images, dataset.classes
    held, wanted = data.validation_size, data.train_size
    fits = f"write {max(classes, pool // 5)}" if 2 * classes <= pool else None
    if classes < 2:
        yield Obstacle(("data.root", "data.dataset"), "data: one class leaves nothing to learn")
    if held >= pool:
        yield Obstacle(
            ("data.validation_size", "data.train_images", "data.dataset"),
            f"data.validation_size: {held} of {pool} training images leave none to train on",
            fits,
        )
    elif wanted is not None and wanted + held > pool:
        yield Obstacle(
            ("data.train_size", "data.validation_size", "data.train_images", "data.dataset"),
            f"data.train_size: {wanted} and {held} for validation are more than the {pool} "
            "training images",
            f"at most {pool - held}",
        )
    for key, size in (("train_size", wanted), ("validation_size", held)):
        if size and size < classes:
            yield Obstacle(
                (f"data.{key}",), f"data.{key}: {counted(size, 'image')} for {classes} classes"
            )
    if wanted is None and 0 < pool - held < classes:
        yield Obstacle(
            ("data.validation_size",),
            f"data.validation_size: {held} of {pool} training images leave {pool - held} to "
            f"train {classes} classes on",
            fits,
        )


def _batches(config: schema.RunConfig, left: int) -> Iterator[Obstacle]:
    batch = config.data.batch_size
    if batch > left:
        names = ("batch_size", "train_size", "validation_size", "train_images", "dataset")
        yield Obstacle(
            tuple(f"data.{name}" for name in names),
            f"data.batch_size: a batch of {batch} is larger than the {left} training images",
            f"at most {left}",
        )
    norm = config.norm
    if not isinstance(norm, schema.Chunked):
        return
    if norm.batch_size is None:
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
    elif batch <= left and (last := last_batch(config)) % norm.batch_size:
        yield Obstacle(
            ("data.drop_last", *keys),
            f"norm.batch_size: {norm.batch_size} does not divide the last batch of an epoch, "
            f"{last} of {left} images",
            "write data.drop_last: true",
        )


def last_batch(config: schema.RunConfig) -> int:
    """Images in the last batch of an epoch of a feasible run."""
    left = train_images_left(config, facts(config.data))
    rest = 0 if config.data.drop_last else left % config.data.batch_size
    return rest or config.data.batch_size


def networks(configs: Iterable[schema.RunConfig]) -> list[list[schema.RunConfig]]:
    """The runs by network: neither their seed nor their learning rate makes networks distinct."""
    groups: dict[object, list[schema.RunConfig]] = {}
    for config in configs:
        dataset = facts(config.data)
        blocks = config.model.model_dump_json(), config.norm.model_dump_json()
        images = dataset.channels, dataset.height, dataset.width, dataset.classes
        batches = config.data.batch_size, last_batch(config)
        groups.setdefault((blocks, images, batches, config.optim.train_only), []).append(config)
    return list(groups.values())


# --- what can train, but should be known to be risky ----------------------------------------


def warnings(configs: Iterable[schema.RunConfig]) -> list[str]:
    """A sentence for each risk that feasible runs take: the worst case, and the setups."""
    worst: dict[int, tuple[tuple[float, ...], str]] = {}
    setups: dict[int, dict[str, None]] = {}
    for config in filter(known, configs):
        for number, size, sentence in _risks(config):
            worst[number] = max(worst.get(number, ((), "")), (size, sentence))
            setups.setdefault(number, {})[config.setup] = None
    return [f"{worst[number][1]} ({named_setups(setups[number])})" for number in sorted(worst)]


def short_warmup(config: schema.RunConfig, steps: int) -> str | None:
    """What may have made a run of so many steps diverge: a warm-up of few of them; else None."""
    warmup = config.optim.warmup
    first = ceil(round(warmup * steps, 9))
    if first >= FEW_STEPS:
        return None
    share = min(0.5, FEW_STEPS / steps)
    return (
        f"the learning rate rises for {counted(first, 'step')} of {steps:,} (optim.warmup: "
        f"{warmup:g}): try optim.warmup: {share:.2g}, or a lower optim.lr"
    )


def initial_weight(config: schema.RunConfig, steps: int) -> float | None:
    """How much of the running statistics is left of their initial values after so many steps; None
    where there are none, and where they begin as they were measured."""
    norm = config.norm
    if not isinstance(norm, schema.BatchStatistics) or weights(config):
        return None
    return 0.0 if norm.momentum is None else (1 - norm.momentum) ** _updates(norm, steps)


def _updates(norm: schema.BatchStatistics, steps: int) -> int:
    """How many of the steps move the running statistics."""
    if isinstance(norm, schema.FrozenNormConfig):
        return round(norm.freeze_after * steps)
    return steps


def _risks(config: schema.RunConfig) -> Iterator[tuple[int, tuple[float, ...], str]]:
    """The number of a risk, how bad this case of it is (larger: worse), and a sentence."""
    norm = config.norm
    if isinstance(norm, schema.NoNorm):
        return
    if config.optim.decay_norm_and_bias and config.optim.weight_decay > 0:
        said = "optim.decay_norm_and_bias: weight decay pulls γ and β towards zero too"
        yield 2, (), said
    if not isinstance(norm, schema.BatchStatistics) or not getattr(norm, "normalize", True):
        return
    if (getattr(norm, "batch_size", None) or config.data.batch_size) == 1:
        yield 3, (), "batch statistics over 1 image: batch norm trains as instance norm"
    steps = planned_steps(config)
    share, updates = initial_weight(config, steps), _updates(norm, steps)
    if share is None:
        return
    if isinstance(norm, schema.FrozenNormConfig) and updates == 0:
        said = (
            f"norm.freeze_after {norm.freeze_after:g}: of {counted(steps, 'optimizer step')} "
            "none comes before the freeze: the running statistics stay at mean 0 and variance 1"
        )
        yield 1, (-norm.freeze_after, -steps), said
        return
    if share >= INITIAL:
        said = (
            f"norm.momentum {in_words(norm.momentum)}: after {counted(updates, 'optimizer step')} "
            f"the running statistics are still {100 * share:.3g} % their initial value"
        )
        yield 0, (share, updates), said
