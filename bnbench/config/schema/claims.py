"""A claim: what an experiment is to show, and what would count as showing it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bnbench.config.schema.base import Block, NonNegative

Arms = Annotated[tuple[str, ...], Field(min_length=1, max_length=2, strict=False)]


class ClaimConfig(Block):
    """One claim, judged from paired differences: `better` minus `worse` at the same seed.

    `better: bn@32` names a value of the one axis that is left, `bn@data.batch_size=32` of any.
    `better: [bn@32, bn@2]` against `worse: [gn@32, gn@2]` is a difference of differences. An axis
    that a claim does not fix is tuned (`tune:`) on validation, with equal trials for each setup.

    A run that diverged is worse than any number, and a target never reached is further than any;
    both are ranked and counted, never averaged. Always inconclusive, with the reason: missing
    runs, a chosen learning rate at the end of its grid, unequal trials, a failed sanity check (a
    gap without batch statistics; no setup learned), setups that come to the same runs.
    """

    id: str = Field(description="a short name, e.g. higher-learning-rates")
    says: str = Field(description="the claim in words")
    metric: str = Field(description="what is compared, e.g. test/running/accuracy")
    better: str | Arms = Field(
        description="the setup that the claim favours, e.g. bn, bn@32 or bn@data.batch_size=32; "
        "two: the first minus the second",
        json_schema_extra={"x-allowed": "a setup such as bn or bn@32, or a list of two"},
    )
    worse: str | Arms | None = Field(
        None,
        description="its opponent; null: zero",
        json_schema_extra={"x-allowed": "a setup such as bn or bn@32, a list of two, or null"},
    )
    at: dict[str, Any] = Field(
        default_factory=dict, description="which cells: values of axes, e.g. {data.batch_size: 64}"
    )
    slope_over: str | None = Field(
        None,
        description="an axis: the metric's least-squares slope per doubling of it is compared",
    )
    target: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="the accuracy that …_to_target and usable_lr_… are about"
    )
    log: bool = Field(
        False, description="compare log₂ of the metric: ratios; for what is always above 0"
    )
    when: Literal["last", "first", "mean"] = Field(
        "last", description="which readings of a probe count"
    )
    smallest_effect: NonNegative = Field(
        0.0,
        description="in the metric's unit (accuracies: percentage points): less does not matter",
    )
    direction: Literal["up", "down", "two-sided"] = Field(
        "up", description="up: better has more of the metric; down: less; two-sided: they differ"
    )
    literature: str | None = Field(
        None, description="what others found; shown with the verdict, never used by it"
    )
