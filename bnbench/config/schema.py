"""What a configuration may say: frozen models, one union for each block that comes in kinds.

The descriptions below are the documentation of every key: they feed `bnbench configs schema`
and the error messages. Defaults here are the defaults of README.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
HalfOpen = Annotated[float, Field(ge=0.0, lt=1.0)]


class Block(BaseModel):
    """A mapping whose keys are closed, whose types are meant, whose numbers are finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,  # a validator is built when it is first needed: importing stays quick
    )


# --- data ---------------------------------------------------------------------------------


class ImageData(Block):
    """Keys that every dataset has."""

    root: str | None = Field(
        None, description="where the data lies; default: the user's cache folder"
    )
    download: bool = Field(True, description="fetch missing files (torchvision's datasets)")
    train_size: PositiveInt | None = Field(
        None, description="a stratified subset of the training images, drawn once per seed"
    )
    validation_size: PositiveInt = Field(1000, description="images held out of the training images")
    batch_size: PositiveInt = Field(64, description="examples per optimizer step")
    eval_batch_size: PositiveInt = Field(
        128, description="examples per forward pass of an evaluation"
    )
    drop_last: bool = Field(True, description="leave out an epoch's last, smaller batch")
    order: Literal["shuffled", "class-sorted"] = Field(
        "shuffled", description="class-sorted: deliberately non-iid batches"
    )
    augment: Literal["none", "flip-crop"] = Field(
        "none", description="flip-crop: random horizontal flip and a crop after 4 pixels of padding"
    )


class Fashion12kData(ImageData):
    """1,000 training and 200 test images of each Fashion-MNIST class; bundled, works offline."""

    dataset: Literal["fashion-mnist-12k"] = "fashion-mnist-12k"


class TorchvisionData(ImageData):
    """A dataset that torchvision knows how to fetch."""

    dataset: Literal["fashion-mnist", "mnist", "kmnist", "cifar10", "cifar100", "svhn"]


class ImageFolderData(ImageData):
    """Images of your own: `root/train/<class>/*` and `root/test/<class>/*`."""

    dataset: Literal["image-folder"]
    root: str = Field(description="folder that holds train/<class>/ and test/<class>/")
    image_size: PositiveInt = Field(
        description="side in pixels; images are resized (short side) and center-cropped"
    )
    channels: Literal[1, 3] = Field(3, description="3: color, 1: grayscale")


class SyntheticData(ImageData):
    """Generated images: a random pattern per class plus noise. For tests and timing."""

    dataset: Literal["synthetic"]
    train_images: PositiveInt = Field(2000, description="training images, before the hold-out")
    test_images: PositiveInt = Field(500, description="test images")
    classes: Annotated[int, Field(ge=2)] = Field(10, description="number of classes")
    channels: PositiveInt = Field(1, description="image channels")
    image_size: PositiveInt = Field(28, description="side in pixels")
    noise: NonNegative = Field(0.5, description="standard deviation of the noise; a pattern has 1")
    data_seed: int = Field(0, ge=0, description="which images are generated, for all seeds alike")


DataConfig: TypeAlias = Annotated[
    Fashion12kData | TorchvisionData | ImageFolderData | SyntheticData, Discriminator("dataset")
]


# --- model --------------------------------------------------------------------------------


class Network(Block):
    """Keys that every network has."""

    activation: Literal["relu", "leaky-relu", "gelu", "silu", "tanh", "sigmoid"] = Field(
        "relu", description="nonlinearity"
    )
    init: Literal["he", "xavier", "small-gaussian"] = Field(
        "he", description="weights of convolutions and linear layers"
    )
    dropout: HalfOpen = Field(0.0, description="share of features dropped before the head")


class PlainModel(Network):
    """Stages of conv-norm-activation, global mean, linear head."""

    kind: Literal["plain"] = "plain"
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, strict=False)] = Field(
        (8, 16, 32), description="channels of each stage; each but the first halves the resolution"
    )
    blocks: PositiveInt = Field(2, description="conv-norm-activation blocks per stage")


class MLPModel(Network):
    """Fully connected layers, each linear-norm-activation."""

    kind: Literal["mlp"]
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, strict=False)] = Field(
        (128, 128), description="units of each hidden layer"
    )


ModelConfig: TypeAlias = Annotated[PlainModel | MLPModel, Discriminator("kind")]


# --- norm ---------------------------------------------------------------------------------


class NoNorm(Block):
    """No normalization; convolutions keep their biases."""

    kind: Literal["none"]


class PlacedNorm(Block):
    """Keys that every normalization has."""

    placement: Literal["before", "after"] = Field(
        "before", description="before or after the activation"
    )
    eps: PositiveFloat = Field(1e-5, description="added to the variance")
    affine: bool = Field(True, description="learn a scale and a shift per channel")


class BatchNormConfig(PlacedNorm):
    """Ioffe & Szegedy 2015; with `batch_size` below the batch size, Ghost BatchNorm."""

    kind: Literal["batch"] = "batch"
    batch_size: PositiveInt | None = Field(
        None, description="examples that share statistics; null: the whole batch"
    )
    momentum: Fraction | None = Field(
        0.1, description="weight of the new batch, as in PyTorch; null: cumulative average"
    )


class GroupNormConfig(PlacedNorm):
    """Wu & He 2018: per image, over groups of channels."""

    kind: Literal["group"]
    groups: PositiveInt = Field(4, description="groups of channels that share statistics")


class LayerNormConfig(PlacedNorm):
    """Per image, over all channels and positions: GroupNorm with one group."""

    kind: Literal["layer"]


NormConfig: TypeAlias = Annotated[
    NoNorm | BatchNormConfig | GroupNormConfig | LayerNormConfig, Discriminator("kind")
]


# --- optimization -------------------------------------------------------------------------


class Optimizer(Block):
    """Keys that every optimizer has."""

    lr: PositiveFloat = Field(0.1, description="learning rate at the peak of the schedule")
    weight_decay: NonNegative = Field(0.0, description="L2 (sgd) or decoupled (adamw)")
    decay_norm_and_bias: bool = Field(
        False, description="apply weight decay to γ, β and biases as well"
    )
    lr_rule: Literal["none", "sqrt", "linear"] = Field(
        "none", description="scale lr by batch_size / base_batch_size, or its square root"
    )
    base_batch_size: PositiveInt = Field(64, description="batch size at which lr holds as given")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "cosine", description="course of the learning rate after the warm-up"
    )
    warmup: HalfOpen = Field(0.05, description="fraction of the budget with a rising rate")
    milestones: Annotated[tuple[Fraction, ...], Field(min_length=1, strict=False)] = Field(
        (0.5, 0.75), description="step: fractions of the budget at which the rate drops"
    )
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="step: factor applied at each milestone"
    )


class SGDConfig(Optimizer):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: HalfOpen = Field(0.9, description="heavy-ball momentum")


class AdamWConfig(Optimizer):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"]
    lr: PositiveFloat = Field(0.002, description="learning rate at the peak of the schedule")
    betas: Annotated[tuple[HalfOpen, HalfOpen], Field(strict=False)] = Field(
        (0.9, 0.999), description="decay rates of the two moment estimates"
    )
    eps: PositiveFloat = Field(1e-8, description="added to the denominator")


OptimConfig: TypeAlias = Annotated[SGDConfig | AdamWConfig, Discriminator("kind")]


# --- training, measuring, computing -------------------------------------------------------


DEVICE = r"auto|cpu|mps|cuda(:[0-9]{1,3})?"
SECONDS = r"[0-9]{1,9}(\.[0-9]{1,9})?s"
BUDGETS = ("epochs", "steps", "examples")
DEFAULT_EPOCHS = 3.0


def _is_device(text: str) -> str:
    if not re.fullmatch(DEVICE, text):
        raise ValueError("not a device")
    return text


def _is_interval(text: str) -> str:
    if not re.fullmatch(SECONDS, text) or float(text[:-1]) == 0:
        raise ValueError("not an interval")
    return text


Device = Annotated[str, AfterValidator(_is_device), Field(json_schema_extra={"pattern": DEVICE})]
Seconds = Annotated[
    str, AfterValidator(_is_interval), Field(json_schema_extra={"pattern": SECONDS})
]


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
        json_schema_extra={"x-allowed": "seconds such as 30s, steps such as 200, or null"},
    )
    diverged_above: Annotated[float, Field(gt=1.0)] = Field(
        10.0,
        description="times ln(classes): a minibatch loss above it, after the warm-up, is a "
        "divergence; a non-finite loss always is",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = [key for key in BUDGETS if values.get(key) is not None]
        if len(given) > 1:
            raise ValueError(f"exactly one of epochs, steps, examples is allowed, not {given}")
        return values if given else {**values, "epochs": DEFAULT_EPOCHS}


class ProbesConfig(Block):
    """Optional measurements during training."""


class ComputeConfig(Block):
    """Where and how the numbers are computed."""

    device: Device = Field(
        "auto",
        description="auto, cpu, cuda, cuda:1, mps",
        json_schema_extra={"x-allowed": "auto, cpu, cuda, cuda:N or mps"},
    )
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="auto: one per worker of a sweep, all cores for train"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast")


# --- a run --------------------------------------------------------------------------------


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
