"""Normalizations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt

from bnbench.config.schema.base import Block, Fraction, NonNegative, Target


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


class GhostNormConfig(PlacedNorm):
    """Hoffer 2017: BatchNorm over chunks of the batch."""

    kind: Literal["ghost"]
    batch_size: PositiveInt = Field(description="examples that share statistics")
    momentum: Fraction | None = Field(
        0.1, description="weight of the new batch, as in PyTorch; null: cumulative average"
    )


class BatchRenormConfig(PlacedNorm):
    """Ioffe 2017: BatchNorm corrected towards its running statistics."""

    kind: Literal["batch-renorm"]
    momentum: Fraction | None = Field(0.01, description="weight of the new batch")
    r_max: Annotated[float, Field(ge=1.0)] = Field(3.0, description="bound of the scale correction")
    d_max: NonNegative = Field(5.0, description="bound of the shift correction")
    correct_from: Fraction = Field(
        0.04, description="fraction of the budget from which the bounds open"
    )
    r_open: Fraction = Field(0.31, description="fraction of the budget at which r_max is reached")
    d_open: Fraction = Field(0.19, description="fraction of the budget at which d_max is reached")


class FrozenNormConfig(PlacedNorm):
    """BatchNorm whose statistics freeze (Wu & Johnson 2021); γ and β go on learning."""

    kind: Literal["frozen"]
    freeze_after: Fraction = Field(0.5, description="fraction of the budget")
    momentum: Fraction | None = Field(
        0.1, description="weight of the new batch, as in PyTorch; null: cumulative average"
    )


class NoisyNormConfig(PlacedNorm):
    """BatchNorm followed by noise that moves the distributions again (Santurkar 2018)."""

    kind: Literal["noisy"]
    momentum: Fraction | None = Field(
        0.1, description="weight of the new batch, as in PyTorch; null: cumulative average"
    )


class GroupNormConfig(PlacedNorm):
    """Wu & He 2018: per image, over groups of channels."""

    kind: Literal["group"]
    groups: PositiveInt = Field(4, description="groups of channels that share statistics")


class GroupWSConfig(PlacedNorm):
    """GroupNorm behind convolutions with weight standardization (Qiao 2019)."""

    kind: Literal["group-ws"]
    groups: PositiveInt = Field(4, description="groups of channels that share statistics")


class LayerNormConfig(PlacedNorm):
    """Per image, over all channels and positions: GroupNorm with one group."""

    kind: Literal["layer"]


class InstanceNormConfig(PlacedNorm):
    """Per image and channel, over positions: GroupNorm with one channel per group."""

    kind: Literal["instance"]


class RMSNormConfig(PlacedNorm):
    """LayerNorm without subtracting the mean."""

    kind: Literal["rms"]


class InsteadOfActivation(Block):
    """Keys of normalizations that stand in the place of the activation, too."""

    placement: Literal["before"] = Field(
        "before",
        description="always before: it is the activation as well",
        json_schema_extra={
            "x-because": "is the activation as well: there is none for it to stand after"
        },
    )


class FRNConfig(InsteadOfActivation):
    """Filter response normalization with thresholded linear unit (Singh & Krishnan 2020)."""

    kind: Literal["frn"]
    eps: PositiveFloat = Field(1e-6, description="added to the mean square")


class EvoNormS0Config(InsteadOfActivation):
    """EvoNorm-S0 (Liu 2020)."""

    kind: Literal["evonorm-s0"]
    groups: PositiveInt = Field(4, description="groups of channels that share a variance")
    eps: PositiveFloat = Field(1e-5, description="added to the variance")


class ScaledWSConfig(Block):
    """Scaled weight standardization without activation normalization (Brock 2021)."""

    kind: Literal["scaled-ws"]


class CustomNormConfig(Block):
    """A layer of your own: called as Class(channels, **options)."""

    kind: Literal["custom"]
    target: Target = Field(description="path/to/file.py:ClassName")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments")
    placement: Literal["before", "after"] = Field(
        "before", description="before or after the activation"
    )


BatchStatistics: TypeAlias = (
    BatchNormConfig | GhostNormConfig | BatchRenormConfig | FrozenNormConfig | NoisyNormConfig
)
"""What normalizes by the statistics of a batch in training, and by running ones in eval mode."""

NormConfig: TypeAlias = Annotated[
    NoNorm
    | BatchNormConfig
    | GhostNormConfig
    | BatchRenormConfig
    | GroupNormConfig
    | LayerNormConfig
    | InstanceNormConfig
    | RMSNormConfig
    | FRNConfig
    | EvoNormS0Config
    | GroupWSConfig
    | ScaledWSConfig
    | FrozenNormConfig
    | NoisyNormConfig
    | CustomNormConfig,
    Discriminator("kind"),
]
