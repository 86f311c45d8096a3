"""A run: its blocks together, their kinds; optimizers, budget, computing."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, Discriminator, Field, model_validator

from bnbench.config.schema.base import (
    Block,
    Count,
    Fraction,
    HalfOpen,
    NonNegative,
    Positive,
    Seed,
    distinct,
    fault,
)
from bnbench.config.schema.data import DataConfig, Fashion12kData
from bnbench.config.schema.model import ModelConfig, PlainModel
from bnbench.config.schema.norm import BatchNormConfig, NormConfig
from bnbench.config.schema.probes import ProbesConfig

DEVICE = r"auto|cpu|mps|cuda(:[0-9]{1,3})?"
SECONDS = r"[0-9]*[1-9][0-9]*(\.[0-9]+)?s|[0-9]+\.[0-9]*[1-9][0-9]*s"  # above 0
Logger: TypeAlias = Literal["tensorboard", "wandb", "mlflow", "trackio"]
BUDGETS = ("epochs", "steps", "examples")
DEFAULT_EPOCHS = 3.0
LOGGERS: tuple[Logger, ...] = ("tensorboard",)
"""Those of a run that names none."""


Device = Annotated[
    str,
    Field(
        pattern=f"^({DEVICE})$", json_schema_extra={"x-allowed": "auto, cpu, cuda, cuda:N or mps"}
    ),
]
Loggers = Annotated[tuple[Logger, ...], AfterValidator(distinct)]
Seconds = Annotated[str, Field(pattern=f"^({SECONDS})$", max_length=20)]


class Optimizer(Block):
    """Keys that every optimizer has."""

    lr: Positive = Field(0.1, description="learning rate at the peak of the schedule")
    weight_decay: NonNegative = Field(0.0, description="L2 (sgd) or decoupled (adamw)")
    decay_norm_and_bias: bool = Field(
        False, description="apply weight decay to γ, β and biases as well"
    )
    lr_rule: Literal["none", "sqrt", "linear"] = Field(
        "none", description="scale lr by batch_size / base_batch_size, or its square root"
    )
    base_batch_size: Count = Field(64, description="batch size at which lr holds as given")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "cosine", description="course of the learning rate after the warm-up"
    )
    warmup: HalfOpen = Field(0.05, description="fraction of the budget with a rising rate")
    milestones: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100)] = Field(
        (0.5, 0.75), description="step: fractions of the budget at which the rate drops"
    )
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="step: factor applied at each milestone"
    )
    train_only: Literal["norm"] | None = Field(
        None, description="norm: train γ and β alone, everything else stays as it was drawn"
    )


class SGDConfig(Optimizer):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: HalfOpen = Field(0.9, description="heavy-ball momentum")


class AdamWConfig(Optimizer):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"]
    lr: Positive = Field(0.002, description="learning rate at the peak of the schedule")
    betas: tuple[HalfOpen, HalfOpen] = Field(
        (0.9, 0.999), description="decay rates of the two moment estimates"
    )
    eps: Positive = Field(1e-8, description="added to the denominator")


OptimConfig: TypeAlias = Annotated[SGDConfig | AdamWConfig, Discriminator("kind")]


class TrainConfig(Block):
    """Budget, evaluations, checkpoints. Exactly one of epochs, steps, examples is set."""

    epochs: Annotated[float, Field(gt=0.0, le=1e6)] | None = Field(
        None, description="passes over the training images; 3 where no budget is given"
    )
    steps: Count | None = Field(None, description="optimizer steps")
    examples: Annotated[int, Field(ge=1, le=10**12)] | None = Field(None, description="images seen")
    evaluations: Annotated[int, Field(ge=1, le=100_000)] = Field(
        10, description="evenly spaced over the budget, the last one at the end"
    )
    evaluation_images: Count | None = Field(
        128,
        description="images of each split at an evaluation before the last; null: all of them. "
        "The last evaluation and the test use all",
    )
    log_every: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="steps per report")
    checkpoint_every: Seconds | Count | None = Field(
        "30s",
        description="seconds (30s), steps (200) or null: at the end only",
        json_schema_extra={"x-allowed": "seconds such as 30s, steps up to 1,000,000,000, or null"},
    )
    diverged_above: Annotated[float, Field(gt=1.0, le=1e9)] = Field(
        10.0,
        description="times ln(classes): a minibatch loss above it, after the warm-up, is a "
        "divergence; a non-finite loss always is",
    )

    @model_validator(mode="before")
    @classmethod
    def _some_budget(cls, values: Any) -> Any:
        if isinstance(values, dict) and all(values.get(key) is None for key in BUDGETS):
            return {**values, "epochs": DEFAULT_EPOCHS}
        return values

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [key for key in BUDGETS if getattr(self, key) is not None]
        if len(given) > 1:
            both = " and ".join(f"train.{key}" for key in given)
            hint = f"give exactly one of {', '.join(BUDGETS)}"
            raise fault(f"{both} are both set", hint, given[1])
        return self


class ComputeConfig(Block):
    """Where and how the numbers are computed."""

    device: Device = Field(
        "auto", description="auto, cpu, mps, cuda:1, or cuda: a sweep takes all GPUs"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        1,
        description="of the CPU; bits depend on them, so a run keeps its number; auto: train takes "
        "what a short measurement finds fastest, a sweep takes 1",
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast")


class RunConfig(Block):
    """One training, fully resolved: every key has its value."""

    experiment: str = Field(description="folder under the runs directory")
    setup: str = Field(description="the arm of the comparison: a label")
    swept: tuple[str, ...] = Field((), description="dotted keys that the experiment varies: labels")
    data: DataConfig = Field(default_factory=Fashion12kData)
    model: ModelConfig = Field(default_factory=PlainModel)
    norm: NormConfig = Field(default_factory=BatchNormConfig)
    optim: OptimConfig = Field(default_factory=SGDConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    probes: ProbesConfig = Field(default_factory=ProbesConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    seed: Seed = Field(
        0, description="initial weights, split and order of the data; the same in every setup"
    )
    log: Loggers = Field(LOGGERS, description="what shows the run: no part of what it is")


# --- kinds --------------------------------------------------------------------------------

Key: TypeAlias = tuple[str, ...]
"""A dotted key, split: `("optim", "lr")`."""


@dataclass(frozen=True)
class Family:
    """One top-level block: its models by kind, or a single model under the kind None."""

    name: str
    tag: str | None  # the key that chooses among the kinds
    models: dict[str | None, type[Block]]
    default: str | None = None

    def kind(self, values: Mapping[str, Any]) -> str | None:
        """The kind that values choose, known or not; the default if they do not choose."""
        if self.tag is None or self.tag not in values:
            return self.default
        kind = values[self.tag]
        return kind if isinstance(kind, str) else "?"

    def fits(self, kind: str | None, key: str) -> bool:
        """Whether a kind may be given a key. An unknown kind may have any.

        A key that no kind has is a misspelling: it fits, and is reported later.
        """
        known = kind not in self.models or key in self.models[kind].model_fields
        return known or not self.kinds_with(key)

    def kinds_with(self, key: str) -> list[str]:
        """The kinds that have a key."""
        return [kind for kind, model in self.models.items() if kind and key in model.model_fields]

    @property
    def kinds(self) -> list[str]:
        """Every kind, in the order of the schema."""
        return [kind for kind in self.models if kind is not None]

    @functools.cached_property
    def keys(self) -> list[str]:
        """The keys of all kinds, each once."""
        return list(
            dict.fromkeys(key for each in self.models.values() for key in each.model_fields)
        )


def _union(name: str, tag: str, alias: Any) -> Family:
    members = get_args(get_args(alias)[0]) or (get_args(alias)[0],)
    models: dict[str | None, type[Block]] = {}
    default: str | None = None
    for member in members:
        field = member.model_fields[tag]
        models |= dict.fromkeys(get_args(field.annotation), member)
        if not field.is_required():
            default = field.default
    return Family(name, tag, models, default)


BLOCKS: dict[str, Family] = {
    "data": _union("data", "dataset", DataConfig),
    "model": _union("model", "kind", ModelConfig),
    "norm": _union("norm", "kind", NormConfig),
    "optim": _union("optim", "kind", OptimConfig),
    "train": Family("train", None, {None: TrainConfig}),
    "probes": Family("probes", None, {None: ProbesConfig}),
    "compute": Family("compute", None, {None: ComputeConfig}),
}


def known(key: Key) -> bool:
    """Whether some kind of the block has the key; what is deeper is the block's affair."""
    return len(key) >= 2 and key[0] in BLOCKS and key[1] in BLOCKS[key[0]].keys


def every_key() -> list[str]:
    """Each `block.key` of the schema."""
    return [f"{block.name}.{key}" for block in BLOCKS.values() for key in block.keys]
