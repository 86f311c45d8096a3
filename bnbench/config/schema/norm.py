"""Normalizations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field

from bnbench.config.schema.base import Block, Count, Fraction, NonNegative, Positive, Size, Target

Momentum = Annotated[
    Fraction | None,
    Field(description="weight of the new batch, as in PyTorch; null: cumulative average"),
]
SharedBy = Annotated[
    Count | None,
    Field(
        description="examples that share statistics, chunk by chunk of a batch: fewer of them at "
        "equal images and steps; null: the whole batch"
    ),
]
Groups = Annotated[Size, Field(description="groups of channels that share statistics")]


class NoNorm(Block):
    """No normalization; convolutions keep their biases."""

    kind: Literal["none"]


class PlacedNorm(Block):
    """Keys that every normalization has."""

    placement: Literal["before", "after"] = Field(
        "before", description="before or after the activation"
    )
    eps: Positive = Field(1e-5, description="added to the variance")
    affine: bool = Field(True, description="learn a scale and a shift per channel")


class BatchNormConfig(PlacedNorm):
    """BatchNorm: each channel over the batch and all positions (Ioffe & Szegedy 2015).

    With `batch_size` below the batch size it is Ghost BatchNorm. Layer: `norms.batch.BatchNorm`.
    """

    kind: Literal["batch"] = "batch"
    batch_size: SharedBy = None
    momentum: Momentum = 0.1


class GhostNormConfig(PlacedNorm):
    """Ghost BatchNorm: BatchNorm over chunks of the batch (Hoffer 2017).

    Layer: `norms.batch.GhostBatchNorm`.
    """

    kind: Literal["ghost"]
    batch_size: Count = Field(description="examples that share statistics")
    momentum: Momentum = 0.1


class BatchRenormConfig(PlacedNorm):
    """BatchNorm corrected towards its running statistics (Ioffe 2017).

    Layer: `norms.renorm.BatchRenorm`.
    """

    kind: Literal["batch-renorm"]
    momentum: Fraction | None = Field(0.01, description="weight of the new batch")
    r_max: Annotated[float, Field(ge=1.0, le=1e9)] = Field(
        3.0, description="bound of the scale correction"
    )
    d_max: NonNegative = Field(5.0, description="bound of the shift correction")
    correct_from: Fraction = Field(
        0.04, description="fraction of the budget from which the bounds open"
    )
    r_open: Fraction = Field(0.31, description="fraction of the budget at which r_max is reached")
    d_open: Fraction = Field(0.19, description="fraction of the budget at which d_max is reached")


class FrozenNormConfig(PlacedNorm):
    """BatchNorm whose statistics freeze during training (Wu & Johnson 2021).

    γ and β keep learning. Layer: `norms.frozen.FrozenBatchNorm`.
    """

    kind: Literal["frozen"]
    freeze_after: Fraction = Field(0.5, description="fraction of the budget; the paper has 0.8")
    batch_size: SharedBy = None
    momentum: Momentum = 0.1


class NoisyNormConfig(PlacedNorm):
    """BatchNorm with random noise that moves the distributions again (Santurkar 2018).

    Layers: `norms.noisy.NoisyBatchNorm`, and `norms.noisy.NoiseAlone` without `normalize`.
    """

    kind: Literal["noisy"]
    momentum: Momentum = 0.1
    normalize: bool = Field(
        True, description="false: the control, the same noise without BatchNorm (γ·x + β instead)"
    )
    mean_range: NonNegative = Field(0.5, description="bound of a channel's mean in a step")
    std_range: Annotated[float, Field(ge=1.0, le=1e9)] = Field(
        1.25, description="bound of a channel's scale in a step, from 1"
    )
    mean_jitter: NonNegative = Field(0.1, description="bound of an example's own shift")
    std_jitter: NonNegative = Field(0.1, description="standard deviation of its own scale")


class GroupNormConfig(PlacedNorm):
    """GroupNorm: each image over groups of channels (Wu & He 2018).

    Layer: `norms.group.GroupNorm`.
    """

    kind: Literal["group"]
    groups: Groups = 4


class GroupWSConfig(PlacedNorm):
    """GroupNorm after convolutions with standardized weights (Qiao 2019).

    Layers: `norms.weight.StandardizedConv2d` and `norms.group.GroupNorm`.
    """

    kind: Literal["group-ws"]
    groups: Groups = 4


class LayerNormConfig(PlacedNorm):
    """LayerNorm: each image over all channels and positions (Ba 2016).

    Layer: `norms.group.LayerNorm`.
    """

    kind: Literal["layer"]


class InstanceNormConfig(PlacedNorm):
    """InstanceNorm: each channel of each image over its positions (Ulyanov 2016).

    Layer: `norms.group.InstanceNorm`.
    """

    kind: Literal["instance"]


class RMSNormConfig(PlacedNorm):
    """LayerNorm without subtracting the mean (Zhang & Sennrich 2019).

    Layer: `norms.group.RMSNorm`.
    """

    kind: Literal["rms"]


class InsteadOfActivation(Block):
    """Keys of normalizations that are the activation as well."""

    placement: Literal["before"] = Field(
        "before",
        description="always before: it is the activation as well",
        json_schema_extra={
            "x-because": "is the activation as well: there is none for it to stand after"
        },
    )


class FRNConfig(InsteadOfActivation):
    """Filter response normalization and activation in one (Singh & Krishnan 2020).

    Layer: `norms.activated.FilterResponseNorm`.
    """

    kind: Literal["frn"]
    eps: Positive = Field(1e-6, description="added to the mean square")


class EvoNormS0Config(InsteadOfActivation):
    """EvoNorm-S0: normalization and activation in one (Liu 2020).

    Layer: `norms.activated.EvoNormS0`.
    """

    kind: Literal["evonorm-s0"]
    groups: Size = Field(4, description="groups of channels that share a variance")
    eps: Positive = Field(1e-5, description="added to the variance")


class ScaledWSConfig(Block):
    """Scaled standardized weights without normalized activations (Brock 2021).

    Layer: `norms.weight.ScaledStandardizedConv2d`.
    """

    kind: Literal["scaled-ws"]


class CustomNormConfig(Block):
    """A layer of your own, made as Class(channels, **options)."""

    kind: Literal["custom"]
    target: Target = Field(description="path/to/file.py:ClassName")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments")
    placement: Literal["before", "after"] = Field(
        "before", description="before or after the activation"
    )


Chunked: TypeAlias = BatchNormConfig | GhostNormConfig | FrozenNormConfig
"""What may take its statistics from chunks of a batch: `batch_size`."""

BatchStatistics: TypeAlias = (
    BatchNormConfig | GhostNormConfig | BatchRenormConfig | FrozenNormConfig | NoisyNormConfig
)
"""What normalizes by the statistics of a batch in training, and by running ones in eval mode."""

TwoModes: TypeAlias = BatchStatistics | CustomNormConfig
"""What may do so: of custom layers it is not known."""

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
