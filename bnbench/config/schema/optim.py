"""Optimizers and their learning rates."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt

from bnbench.config.schema.base import Block, Fraction, HalfOpen, NonNegative


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
    lr: PositiveFloat = Field(0.002, description="learning rate at the peak of the schedule")
    betas: Annotated[tuple[HalfOpen, HalfOpen], Field(strict=False)] = Field(
        (0.9, 0.999), description="decay rates of the two moment estimates"
    )
    eps: PositiveFloat = Field(1e-8, description="added to the denominator")


OptimConfig: TypeAlias = Annotated[SGDConfig | AdamWConfig, Discriminator("kind")]
