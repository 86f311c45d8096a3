"""Batches that may be mixed, and those that may not: of other shapes, of another domain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

Path: TypeAlias = tuple[Any, ...]
"""Keys and indices that lead to a part of a batch."""

Column: TypeAlias = "Tensor | list[Any]"
"""The same part of all examples: rows of a tensor, or one object each."""


@dataclass(frozen=True, slots=True)
class Part:
    """The place of a part of a batch."""

    path: Path


@dataclass(slots=True, eq=False)
class Group:
    """Examples that fit into one batch. `form`: the batch, a `Part` in the place of each part;
    `columns`: the parts that have a row for each example, `rest`: the others. `count`: examples.
    """

    form: Any = None
    columns: dict[Path, list[Column]] = field(default_factory=dict)
    rest: dict[Path, Any] = field(default_factory=dict)
    count: int = 0

    def fits(self, other: Group, kinds: set[Path]) -> bool:
        """Whether one batch may hold examples of both. `kinds`: parts whose values must agree."""

        def shape(of: Column) -> Any:
            return (of.shape[1:], of.dtype) if isinstance(of, Tensor) else list

        def same(one: Any, other: Any) -> bool:
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                return torch.equal(one, other)
            return type(one) is type(other)  # of names, paths, indices, the first batch's serve

        return (
            self.form == other.form
            and self.columns.keys() == other.columns.keys()
            and all(shape(self.columns[p][0]) == shape(c[0]) for p, c in other.columns.items())
            and all(same(self.rest[path], value) for path, value in other.rest.items())
            and all(_of_all(self, path) == _of_all(other, path) for path in kinds)
        )

    def joined(self) -> dict[Path, Column]:
        """All batches' columns, one after the other."""
        found: dict[Path, Column] = {}
        for path, parts in self.columns.items():
            tensors = [each for each in parts if isinstance(each, Tensor)]
            found[path] = torch.cat(tensors) if tensors else [e for part in parts for e in part]
        return found


def grouped(batches: Sequence[Group], taken: Collection[Path]) -> tuple[list[Group], Tensor]:
    """Batches of one kind together, and, (n, 2), each example's group and its row there. `taken`:
    parts that the network takes."""
    groups, places = list[Group](), list[Tensor]()
    rest = {p: [_of_all(each, p) for each in batches] for p in {*batches[0].rest, *taken}}
    # Numbers and words that come again say of which kind a batch is, as the domain by which a
    # network takes its layers; of indices and names, most are new in each batch.
    plain = {p: found for p, found in rest.items()
             if all(isinstance(each, int | float | str | None) for each in found)}  # fmt: skip
    kinds = {p for p, found in plain.items() if 1 < len({*found}) <= (len(found) + 1) // 2}
    for new in batches:
        number = next((k for k, each in enumerate(groups) if each.fits(new, kinds)), len(groups))
        rows = torch.arange(new.count)
        if number == len(groups):
            groups.append(new)
        else:
            group = groups[number]
            for path, column in new.columns.items():
                group.columns[path] += column
            rows += group.count
            group.count += new.count
        places.append(torch.stack([torch.full_like(rows, number), rows], 1))
    return groups, torch.cat(places)


def _of_all(batch: Group, path: Path) -> Any:
    """What a batch has there for all of its examples: a part of its own, or a whole number that
    each of them has; of others something that is no number."""
    column = batch.columns.get(path, [None])[0]
    if not isinstance(column, Tensor) or column.is_floating_point() or column.is_complex():
        return batch.rest.get(path, column)
    first = column.flatten()[:1]
    return int(first) if len(first) and bool((column == first).all()) else column
