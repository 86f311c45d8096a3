"""Classes of the user's own images: their names, and whether every label has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bnbench.errors import DataError

IMAGE_NAMES = ("image", "img", "pixel_values", "pixels")
LABEL_NAMES = ("label", "labels", "fine_label", "target")
"""What a dictionary calls its image and its label; the first that it has counts."""


def class_names(
    returned: Sequence[Any], train: Tensor, test: Tensor, where: str
) -> tuple[str, ...]:
    """The names of the classes, after checking that every label has one."""
    names = returned[2] if len(returned) == 3 else _names(returned[0])
    if names is not None:
        names = tuple(map(str, names))
    count = int(train.max()) + 1 if names is None else len(names)
    for part, labels in (("train", train), ("test", test)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= count:
            wrong = int(((labels < 0) | (labels >= count)).int().argmax())
            known = "" if names is None else f"; the classes are {', '.join(names[:10])}"
            raise DataError(
                f"{where}: labels of {part} are {low} to {high}; {count} classes are numbered 0 to "
                f"{count - 1}",
                do=f"look at {part}[{wrong}], which has {int(labels[wrong])}: number the classes "
                f"from 0, alike in both parts{known}",
            )
    missing = (torch.bincount(train, minlength=count) == 0).nonzero().flatten().tolist()
    if missing:
        raise DataError(
            f"{where}: class {missing[0]} has no image in train, and {len(missing) - 1} others",
            do="number the classes from 0, without gaps",
        )
    return tuple(f"class {label}" for label in range(count)) if names is None else names


def _names(source: Any) -> Sequence[Any] | None:
    """The names that a dataset knows: torchvision's `classes`, Hugging Face's features."""
    while source is not None:
        features = getattr(source, "features", None)
        if isinstance(features, Mapping):
            return getattr(features.get(first_of(LABEL_NAMES, features)), "names", None)
        found = getattr(source, "classes", None)
        if isinstance(found, list | tuple):
            return found
        source = getattr(source, "dataset", None)  # of a Subset
    return None


def first_of(names: Sequence[str], among: Any) -> str:
    return next((name for name in names if name in among), "")
