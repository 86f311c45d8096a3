"""A run: its blocks together, and those that come in one kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from bnbench.config.schema.base import Block, allowed, fault
from bnbench.config.schema.data import DataConfig, Fashion12kData
from bnbench.config.schema.model import ModelConfig, PlainModel
from bnbench.config.schema.norm import BatchNormConfig, NormConfig
from bnbench.config.schema.optim import OptimConfig, SGDConfig
from bnbench.config.schema.probes import ProbesConfig

DEVICE = r"auto|cpu|mps|cuda(:[0-9]{1,3})?"
SECONDS = r"[0-9]*[1-9][0-9]*(\.[0-9]+)?s|[0-9]+\.[0-9]*[1-9][0-9]*s"  # above 0
BUDGETS = ("epochs", "steps", "examples")
DEFAULT_EPOCHS = 3.0


Device = Annotated[
    str,
    Field(pattern=f"^({DEVICE})$", json_schema_extra=allowed("auto, cpu, cuda, cuda:N or mps")),
]
Seconds = Annotated[str, Field(pattern=f"^({SECONDS})$", max_length=20)]


class TrainConfig(Block):
    """Budget, evaluations, checkpoints. Exactly one of epochs, steps, examples is set."""

    epochs: Annotated[float, Field(gt=0.0, le=1e6)] | None = Field(
        None, description="passes over the training images; 3 where no budget is given"
    )
    steps: PositiveInt | None = Field(None, description="optimizer steps")
    examples: PositiveInt | None = Field(None, description="images seen")
    evaluations: PositiveInt = Field(
        10, description="evenly spaced over the budget, the last one at the end"
    )
    evaluation_images: PositiveInt | None = Field(
        128,
        description="images of each split at an evaluation before the last; null: all of them. "
        "The last evaluation and the test use all",
    )
    log_every: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="steps per report")
    checkpoint_every: Seconds | PositiveInt | None = Field(
        "30s",
        description="seconds (30s), steps (200) or null: at the end only",
        json_schema_extra=allowed("seconds such as 30s, steps such as 200, or null"),
    )
    diverged_above: Annotated[float, Field(gt=1.0)] = Field(
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

    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="auto: one per worker of a sweep, all cores for train"
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
    seed: Annotated[int, Field(ge=0)] = Field(
        0, description="initial weights, split and order of the data; the same in every setup"
    )
