"""What in the output of a network is its answer, and what its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ANSWERS = ("logits", "out", "output", "sample", "prediction")
"""What answers are called in outputs that are dicts or objects; `out`: torchvision's
segmentation."""

IGNORED = (-100, 255)
"""Labels that count for nothing: torch's default, and that of most segmentation datasets."""

TWO = (-1, 1), (0, 255)
"""Labels of two kinds, beside 0 and 1: a hinge's, and those of a mask that is an image."""

UNSEEN = 1.25
"""A network has so many times the classes that labels show, at most, where it has been trained for
them: of 20 random labels, 99 in 100 times one is in the upper fifth."""


def answer(output: Any, place: int = 0) -> Tensor | None:
    """The tensor in an output that is the answer: it, `.logits`, …, else the one at this place of a
    tuple or dict."""
    if isinstance(output, Tensor):
        return output
    output = heads(output)
    if isinstance(output, list | tuple) and output:
        there = output[place if place < len(output) else 0]
        return answer(there) if not isinstance(there, Mapping) else None
    for name in ANSWERS:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    return None


def heads(output: Any) -> Any:
    """The values of a dict that does not name its answer, as heads by task; else the output."""
    if isinstance(output, Mapping) and not any(name in output for name in ANSWERS):
        return [*output.values()]
    return output


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


def place_of(output: Any, labels: Tensor, every: Sequence[Tensor]) -> tuple[int, bool]:
    """Where the answer is in a tuple, as (features, logits), and whether others might be it: the
    first part that has a place for each label, or about as many as there are classes (`UNSEEN`);
    else the first with a place for each class, or 0. `every`: all labels, in tensors of one shape.
    """
    fit = []
    output = heads(output)
    for k, each in enumerate(output if isinstance(output, list | tuple) else ()):
        found = answer(each)
        if found is None or not found.is_floating_point():
            continue
        at = classes_at(found, labels)
        size = 0 if at is None else found.shape[at]
        classes = classes_in(every, size)
        one_each = classes <= 2 and found.ndim > 0 and found.numel() == labels.numel()
        if one_each or 0 < classes <= size <= UNSEEN * classes:
            return k, False
        fit += [k] * (0 < classes <= size)
    return next(iter(fit), 0), len(fit) > 1


def classes_in(every: Sequence[Tensor], size: int) -> int:
    """How many classes labels show to a network that has so many; 0 where they are no numbers of
    classes. Whole numbers of any dtype are: some loops convert them later."""
    for each in every:
        if each.is_complex() or (each.is_floating_point() and bool((each != each.round()).any())):
            return 0
    known = [each[counted(each, size)] for each in every]
    return max((int(each.max()) + 1 for each in known if len(each)), default=0)


def counted(labels: Tensor, classes: int) -> Tensor:
    """Which of these labels, (n, …), count to a network of so many classes: one of these may have
    the number 255, and of images with a label each, it has it unless some are -100."""
    labels = labels.long()
    found = torch.ones_like(labels, dtype=torch.bool)
    if labels.numel() > len(labels) or bool((labels == IGNORED[0]).any()):
        for each in IGNORED:
            found &= (labels != each) | (0 < each < classes)
    return found


def per_place(labels: Tensor, found: Tensor) -> Tensor:
    """Labels (n, 1, …) without that dimension, where the output has classes in its place."""
    one = labels.ndim == found.ndim > 1 and labels.shape[1] == 1 < found.shape[1]
    return labels.squeeze(1) if one else labels


def classes_at(found: Tensor, labels: Tensor) -> int | None:
    """In which dimension of an output (n, C, …) or (n, …, C) the classes of these labels, (n, …) or
    (n, 1, …), are; None where they do not fit."""
    labels = per_place(labels, found)
    if found.ndim != labels.ndim + 1:
        return None
    if found.shape[:1] + found.shape[2:] == labels.shape and found.shape[1] > 1:
        return 1
    return found.ndim - 1 if found.shape[:-1] == labels.shape and found.shape[-1] > 1 else None


def of_two(labels: Tensor) -> tuple[int, int] | None:
    """Which of `TWO` the labels are; None where they are others, or of one kind only."""
    if not labels.is_floating_point():
        labels = labels.long()  # to uint8, -1 is 255
    for no, yes in TWO:
        found = labels == no, labels == yes
        if all(each.any() for each in found) and bool((found[0] | found[1] | labels.isnan()).all()):
            return no, yes
    return None


def shares_at(labels: Tensor) -> int | None:
    """In which dimension of labels (n, C, …) or (n, …, C) are shares of classes, which sum to one;
    None where they are none, as labels (n,)."""
    for at in dict.fromkeys((1, labels.ndim - 1)) if labels.ndim > 1 else ():
        sums = labels.sum(at, dtype=torch.float64)
        if labels.shape[at] > 1 and torch.allclose(sums, torch.ones_like(sums)):
            return at if bool((labels >= 0).all()) else None
    return None


def known_mean(labels: Tensor) -> Tensor:
    """The mean of each place, (…), in fp64, over the labels (n, …) that are not missing."""
    return labels.nansum(0, dtype=torch.float64) / (~labels.isnan()).sum(0)


def log_shares(found: Tensor) -> Tensor:
    """Logarithms of the classes' shares, in dimension 1, of logits or of shares (a softmax)."""
    if bool((found >= 0).all()) and torch.allclose(found.sum(1), torch.ones_like(found[:, 0])):
        return found.clamp(min=1e-12).log()
    return F.log_softmax(found, 1)


def in_unit(found: Tensor) -> bool:
    """Whether outputs are from 0 to 1, as a sigmoid's."""
    return bool(((found >= 0) & (found <= 1)).all())
