"""What is known of how a model came to be, and what it explains: a checkpoint without statistics,
an average of weights, batches for each optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bnbench.diagnosis.case import Case, worst_of
from bnbench.diagnosis.criteria import off
from bnbench.diagnosis.evidence import Evidence
from bnbench.diagnosis.result import Finding, LayerReading, finding

OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optimizer_states")
"""What optimizers are called in checkpoints; Lightning's are a list."""

MOST, NEAR = 64.5, 0.02
"""Batches for a step that are accumulated, at most; how far from a whole number the ratio may be,
as the last ones of an epoch may be fewer."""


def missing(case: Case) -> Finding | None:
    """Layers whose running statistics were not loaded.

    Without a checkpoint only where others have theirs: a network none of whose layers tracked a
    batch may be one that was trained in eval() or by functions.
    """
    layers, target = case.tracking, case.evidence.target
    lacking = [each for each in layers if each.name in target.lacking]
    if lacking and target.checkpoint:
        text = (
            f"{target.checkpoint.name} has no running statistics for {len(lacking)} of "
            f"{len(layers)} layers, which have those that the model was made with"
        )
        return finding("missing-buffers", f"{text}; {case.costs}", lacking, harmful=case.gap)
    skipped = [
        each for each in case.new if each.updates == 0 and _was_trained(case.norms[each.name])
    ]
    counted = [each for each in layers if each.updates and each not in case.new]
    if not (case.gap and skipped and counted):
        return None
    return finding(
        "missing-buffers",
        f"{len(skipped)} of {len(layers)} layers have the mean 0 and the variance 1 of a new layer "
        "and have tracked no batch, though their own weights have moved and layer "
        f"{counted[0].name} has tracked {counted[0].updates:,}: not loaded, or in eval() while "
        f"others were in train(); {case.costs}",
        skipped,
    )


def _was_trained(norm: nn.Module) -> bool:
    """Whether its weight and bias are not what a new layer has."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return False
    return bool((weight != weight.flatten()[0]).any() or (bias != 0).any())


def averaged(case: Case, layers: Sequence[LayerReading]) -> Finding | None:
    """Running statistics that fit the live model's weights, of which these are an average."""
    fits = case.fit_better(
        layers,
        case.evidence.of_live,
        "those of the live model: they are its statistics",
        case.pools,
        "that these weights give",
    )
    if not fits:
        return None
    return finding("averaged-weights", f"{fits}; {case.costs}", list(filter(off, layers)))


def or_averaged(evidence: Evidence) -> str:
    """That statistics may be the live model's instead, where weights are an average and it is not
    there to be compared with; after "; "."""
    averages = evidence.target.averages
    if not averages or evidence.of_live is not None:
        return ""
    return (
        f"; or, as {averages} averages weights, the running statistics are those "
        "of the model that was averaged: give it as live, which tells"
    )


def batches_per_step(case: Case) -> int:
    """How many batches the layers have tracked for each optimizer step; 1 where it is not known.

    A count that began before these steps, as of a network that was trained elsewhere, is no
    multiple of them, as a rule.
    """
    steps, calls = case.evidence.target.steps, case.evidence.survey.calls
    counts = {(each.updates or 0) / max(calls.get(each.name, 1), 1) for each in case.tracking}
    if not steps or len(counts) != 1:
        return 1
    ratio = counts.pop() / steps
    return round(ratio) if 1.5 < ratio < MOST and abs(ratio - round(ratio)) < NEAR else 1


def told_by_counts(case: Case) -> Finding | None:
    """What a mismatch is, where the model says that it averages weights, or where counts of batches
    and of optimizer steps say that micro-batches were accumulated.

    Variances alone do not tell micro-batches: of networks trained in batches of 2, they fit those
    of batches of 64 nearly as well.
    """
    wraps = case.evidence.target.averages
    far = [each for each in case.tracking if off(each)] or (case.tracking if wraps else [])
    if not far:
        return None
    worst = worst_of(far)
    where = f"layer {worst.name}: {worst.errors}; {case.costs}"
    if wraps and case.evidence.of_live is None:
        return finding(
            "averaged-weights",
            f"{wraps} averages weights, and the running statistics do not belong to the average; "
            f"{where}",
            far,
        )
    number = batches_per_step(case)
    if number == 1:
        return None
    size = case.batch_size
    split = f", or of {size // number} where those are split" if size >= 2 * number else ""
    return finding(
        "micro-batches",
        f"{number} batches were tracked for each optimizer step (gradient accumulation): the "
        f"layers have seen batches of {size}, as the loader gives them{split}, and their running "
        f"statistics average over {worst.window:,.0f} of these; {where}",
        far,
    )


def steps_in(content: Any) -> int | None:
    """How many steps an optimizer in a checkpoint has made, where it counts them as Adam does."""
    kept: Any = next((content[key] for key in OPTIMIZERS if key in content), None)
    first = kept[0] if isinstance(kept, list) and kept else kept
    states = first.get("state") if isinstance(first, Mapping) else None
    counts = [
        int(each["step"])
        for each in (states.values() if isinstance(states, Mapping) else ())
        if isinstance(each, Mapping) and isinstance(each.get("step"), int | float | Tensor)
    ]
    return max(counts, default=None)
