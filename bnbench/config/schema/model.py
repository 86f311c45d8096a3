"""Networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, model_validator

from bnbench.config.schema.base import Block, HalfOpen, Size, Target, Text, fault

Paddings = Annotated[
    tuple[Annotated[int, Field(ge=0, le=99)], ...], Field(min_length=1, max_length=10)
]
Initialization: TypeAlias = Literal["he", "xavier", "lecun", "small-gaussian"]


class Network(Block):
    """Keys that every network has."""

    activation: Literal["relu", "leaky-relu", "gelu", "silu", "tanh", "sigmoid", "selu"] = Field(
        "relu", description="nonlinearity"
    )
    init: Initialization = Field("he", description="weights of convolutions and linear layers")
    dropout: HalfOpen = Field(0.0, description="share of features dropped before the head")


class PlainModel(Network):
    """Stages of conv-norm-activation, global mean or all features, linear head.

    Network: `models.plain.Plain`.
    """

    kind: Literal["plain"] = "plain"
    widths: Annotated[tuple[Size, ...], Field(min_length=1, max_length=10)] = Field(
        (8, 16, 32), description="channels of each stage; each but the first halves the resolution"
    )
    blocks: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="conv-norm-activation blocks per stage"
    )
    kernel: Annotated[int, Field(ge=1, le=99)] = Field(3, description="side of each convolution")
    padding: Paddings | None = Field(
        None,
        description="zeros around the images, for the convolutions of each stage; null: half the "
        "kernel, which keeps the size",
        json_schema_extra={"x-allowed": "a list, one number a stage, or null"},
    )
    halving: Literal["stride", "average", "max"] = Field(
        "stride",
        description="stride: in the first convolution of each stage but the first; average, max: "
        "pooling of 2×2 after each stage",
    )
    features: Literal["mean", "all"] = Field(
        "mean", description="what the head sees: each channel's mean, or all its pixels (flatten)"
    )
    hidden: Annotated[tuple[Size, ...], Field(max_length=10)] = Field(
        (), description="units of fully connected layers before the head, each with norm"
    )


class ResNetModel(Network):
    """The CIFAR residual networks, with 6n + 2 layers (He 2015 and 2016).

    Network: `models.resnet.ResNet`.
    """

    kind: Literal["resnet"]
    depth: Annotated[int, Field(ge=1, le=602)] = Field(
        20, description="layers: 8, 14, 20, 32, 44, 56, … (6n + 2)"
    )
    # Below 8 channels, torch 2.14's 1×1 convolution of stride 2 on channels-last writes outside of
    # its memory on x86 CPUs (seen with 4; 8 and more are clean under glibc's heap checks).
    width: Annotated[int, Field(ge=8, le=16_384)] = Field(
        16, description="channels of the first stage; then twice, 4 times"
    )
    variant: Literal["post", "pre"] = Field(
        "post", description="post: conv-norm-relu; pre: full pre-activation (He 2016b)"
    )
    zero_init_last_norm: bool = Field(
        False, description="the last γ of each branch starts at 0, so that blocks start as identity"
    )
    fixup: bool = Field(
        True, description="Fixup initialization where there is no norm, for a fair opponent"
    )


class MLPModel(Network):
    """Fully connected layers, each linear-norm-activation, and a linear head.

    Network: `models.plain.MLP`.
    """

    kind: Literal["mlp"]
    widths: Annotated[tuple[Size, ...], Field(min_length=1, max_length=100)] = Field(
        (128, 128), description="units of each hidden layer"
    )
    depth: Annotated[int, Field(ge=1, le=400)] | None = Field(
        None,
        description="hidden layers: the last of widths is repeated until there are so many; null: "
        "as many as widths",
    )
    norm_inputs: bool = Field(False, description="a normalization of the pixels comes first")


class ForeignModel(Block):
    """Keys of networks that are written elsewhere."""

    pretrained: Text | None = Field(
        None,
        description="file of weights (a saved state_dict) that the network as it is built starts "
        "from, instead of init; a last layer for other classes stays as it was drawn",
    )


class SwappedModel(ForeignModel):
    """Keys of networks that take a normalization, or are built as they are."""

    norm: Literal["swap"] | None = Field(
        None, description="swap: built as it is, its BatchNorms exchanged; null: made with the norm"
    )

    @model_validator(mode="after")
    def _as_built(self) -> Self:
        if self.pretrained is not None and self.norm is None:
            raise fault(
                "{name} holds the weights of a network as it is built, before its norms are "
                "exchanged",
                "write norm: swap, too",
                "pretrained",
            )
        return self


class TorchvisionModel(SwappedModel):
    """A torchvision classifier whose constructor takes norm_layer, or any with norm: swap.

    Network: `models.torchvision_classifier`.
    """

    kind: Literal["torchvision"]
    name: str = Field(description="the constructor's name, e.g. resnet18")
    stem: Literal["small", "imagenet"] = Field(
        "small", description="small: 3×3 convolution of stride 1, no pooling (resnets only)"
    )
    init: Initialization = Field("he", description="weights of convolutions and linear layers")


class TimmModel(ForeignModel):
    """A timm classifier, built as it is, its BatchNorms exchanged; untrained.

    Network: `models.timm_classifier`.
    """

    kind: Literal["timm"]
    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_.]+$", json_schema_extra={"x-allowed": "a name without / and :"}
        ),
    ] = Field(description="as timm.list_models() has it, e.g. resnet18")
    init: Literal["own", "he", "xavier", "small-gaussian"] = Field(
        "own", description="own: as timm leaves them; else by name, as elsewhere"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of timm.create_model"
    )

    @model_validator(mode="after")
    def _no_download(self) -> Self:
        for key, instead in TIMMS.items():
            if key in self.options:
                raise fault(f"{{name}} may not have {key}", instead, "options")
        return self


TIMMS = {
    "pretrained": "name a file: pretrained: FILE",
    "checkpoint_path": "name a file: pretrained: FILE",
    "pretrained_cfg_overlay": "name a file: pretrained: FILE",
    "num_classes": "the data decide it",
    "in_chans": "the data decide it",
}
"""Arguments of timm.create_model that are not for `options`, and what there is instead."""


class CustomModel(SwappedModel):
    """A network of your own.

    It is made as Class(in_channels=, classes=, make_norm=, **options); with norm: swap without
    make_norm, and a function may stand for the class.
    """

    kind: Literal["custom"]
    init: Literal["own", "he", "xavier", "lecun", "small-gaussian"] = Field(
        "own", description="own: as its constructor leaves them; else by name, as elsewhere"
    )
    target: Target = Field(description="path/to/file.py:ClassName")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments")


ModelConfig: TypeAlias = Annotated[
    PlainModel | ResNetModel | MLPModel | TorchvisionModel | TimmModel | CustomModel,
    Discriminator("kind"),
]
