"""What in the output of a network is its answer, and what its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

ANSWERS = ("logits", "out", "output", "sample", "prediction")
"""What answers are called in outputs that are dicts or objects; `out`: torchvision's
segmentation."""


def answer(output: Any, place: int = 0) -> Tensor | None:
    """The tensor in an output that is the answer: it, the one at this place of a tuple, `.logits`,
    …"""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, list | tuple) and output:
        there = output[place if place < len(output) else 0]
        return answer(there) if not isinstance(there, Mapping) else None
    for name in ANSWERS:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    return None


def total(output: Any) -> Tensor | None:
    """The loss that a model gives itself in training: a number, `.loss`, `["loss"]`, or the sum of
    a dict of numbers."""
    if isinstance(output, Mapping):
        output = output["loss"] if "loss" in output else list(output.values())
    if isinstance(output, list | tuple):
        parts = [each for each in output if isinstance(each, Tensor)]
        numbers = parts and all(each.numel() == 1 and each.is_floating_point() for each in parts)
        return torch.stack([each.flatten()[0] for each in parts]).sum() if numbers else None
    output = output if isinstance(output, Tensor) else getattr(output, "loss", None)
    is_number = isinstance(output, Tensor) and output.ndim == 0 and output.is_floating_point()
    return output if is_number else None


def place_of(output: Any, labels: Tensor, every: Tensor) -> int:
    """Where the answer is in a tuple, as (features, logits): the first part that has a place for
    each label, or just as many as there are classes; 0 where none has."""
    known = every[:0]
    if not every.is_floating_point() and not every.is_complex():
        known = every[(every != -100) & (every != 255)]
    classes = int(known.max()) + 1 if len(known) else 0
    for k, each in enumerate(output if isinstance(output, list | tuple) else ()):
        found = answer(each)
        if found is None or not found.is_floating_point():
            continue
        at = classes_at(found, labels)
        one_each = classes <= 2 and found.ndim > 0 and found.numel() == labels.numel()
        if one_each or (at is not None and found.shape[at] == classes):
            return k
    return 0


def classes_at(found: Tensor, labels: Tensor) -> int | None:
    """In which dimension of an output (n, C, …) or (n, …, C) the classes of these labels, (n, …),
    are; None where they do not fit."""
    if found.ndim != labels.ndim + 1:
        return None
    if found.shape[:1] + found.shape[2:] == labels.shape and found.shape[1] > 1:
        return 1
    return found.ndim - 1 if found.shape[:-1] == labels.shape and found.shape[-1] > 1 else None
