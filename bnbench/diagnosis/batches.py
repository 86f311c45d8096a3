"""Batches of any make, tensors, tuples, dicts, lists of examples: kept, and cut into others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

# Private, as torch has no public one; it knows named tuples and deques, which loaders yield, and
# what libraries register with it.
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from bnbench.diagnosis.foreign import described, in_a_sentence
from bnbench.diagnosis.grouping import Column, Group, Part, Path, grouped
from bnbench.diagnosis.result import Loader
from bnbench.errors import DataError, UsageError
from bnbench.guard import ForeignCode, items

MOST_BYTES = 2**30
"""Tensors that are kept of one loader, at most: 1,783 images of 3×224×224 in fp32. Two loaders of
them and a network fit into a laptop's memory."""

EMPTY_BATCHES = 1000
"""After so many batches without an example, more are not waited for."""

OF_DATASET = 64  # examples in a batch, where a Dataset is given

EXPECTED = (
    "expected a tensor, or tensors in a tuple or dict, as (inputs, labels), with one row for each "
    'example. Else make them so: def collate(rows): …; return {"x": x, "y": y}; '
    "DataLoader(data, batch_size, collate_fn=collate)"
)


GRAPHS = (
    "make graphs examples: collate_fn=lambda graphs: (graphs, torch.stack([each.y for each in "
    "graphs])), forward=lambda model, batch: model(Batch.from_data_list(batch[0]))"
)


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Examples in the loader's order; `sizes`: of its batches; `single`: whether the loader has
    batches of one among larger ones.

    `groups`: for each kind of batch its form, columns and other parts; `place`: (n, 2), of each
    example its group and its row there. Examples of different shapes are in different groups: they
    never share a batch.
    """

    loader: Loader
    groups: Sequence[tuple[Any, dict[Path, Column], dict[Path, Any]]]
    place: Tensor
    sizes: tuple[int, ...]
    device: torch.device
    single: bool = False

    def __len__(self) -> int:
        return len(self.place)

    @property
    def batch_size(self) -> int:
        """The loader's own: that in which most examples come, as others may be smaller."""
        return max({*self.sizes}, key=lambda size: (size * self.sizes.count(size), size))

    @property
    def alike(self) -> bool:
        """Whether any of the examples may share a batch."""
        return len(self.groups) == 1

    def as_they_come(self) -> list[Tensor]:
        """Positions of the examples of each batch."""
        return list(torch.arange(len(self)).split(self.sizes))  # type: ignore[no-untyped-call]

    def cut(self, order: Tensor, size: int, enough: int = 1) -> list[Tensor]:
        """These positions in batches of `size`, which keep to one group. A last batch of fewer than
        `enough` joins the one before."""
        found: list[Tensor] = []
        of = self.place[order, 0]
        for group in range(len(self.groups)):
            parts = list(order[of == group].split(size))  # type: ignore[no-untyped-call]
            if len(parts) > 1 and len(parts[-1]) < enough:
                parts[-2:] = [torch.cat(parts[-2:])]
            found += [each for each in parts if len(each)]
        return found

    def batch(self, positions: Tensor) -> Any:
        """A batch of these examples, copied, on the device; all of one group."""
        group, rows = int(self.place[positions[0], 0]), self.place[positions, 1]
        form, columns, parts = self.groups[group]
        parts = parts | {
            path: column[rows] if isinstance(column, Tensor) else [column[k] for k in rows.tolist()]
            for path, column in columns.items()
        }
        batch = tree_map(lambda part: parts[part.path], form)
        return tree_map_only(Tensor, lambda each: each.to(self.device), batch)

    def column(self, path: Path) -> Tensor | None:
        """A part of all examples, in the loader's order; None where it differs in shape."""
        found = [columns.get(path) for _, columns, _ in self.groups]
        tensors = [each for each in found if isinstance(each, Tensor)]
        if len(tensors) < len(found) or len({each.shape[1:] for each in tensors}) > 1:
            return None
        begin = torch.tensor([0, *map(len, tensors)]).cumsum(0)
        return torch.cat(tensors)[begin[self.place[:, 0]] + self.place[:, 1]]

    def tensors(self) -> Iterator[tuple[Path, Tensor]]:
        """Every tensor that is kept, and where it is in a batch."""
        for _, columns, _ in self.groups:
            for path, column in columns.items():
                yield from ((path, each) for each in _tensors(column))


def collect(
    source: Iterable[Any] | Dataset[Any],
    loader: Loader,
    images: int,
    device: torch.device,
    code: ForeignCode,
    seed: int = 0,
    arguments: Callable[[Any], Collection[Path]] = lambda _: (),
) -> Collected:
    """Whole batches that hold `images` examples, or as many as there are or as fit.

    Of a `DataLoader` over a dataset with indices, and of a list, one random batch from each of as
    many equal parts: a dataset may be sorted, and batches may alternate. Of others, the first. A
    `Dataset` is put into batches of 64. `arguments`: what of a batch the network takes beside its
    first input. Raises UsageError, DataError.
    """
    fails = in_a_sentence(f"the {loader} loader", DataError)
    do = "give one that yields batches of several images"
    with code.entered(fails):
        if _is_dataset(source):
            mixed = not isinstance(source, IterableDataset)
            source = DataLoader(cast(Any, source), OF_DATASET, shuffle=mixed)
        spread, single = _spread(source, loader, images, seed)
    found: list[Group] = []
    size_in_bytes, kept, empty = 0, 0, 0
    for batch in items(spread, partial(code.entered, fails)):
        count = _count_of(batch, loader)
        if count == 0:
            empty += 1
            if empty < EMPTY_BATCHES:
                continue
            gave = f"the {loader} loader gave {EMPTY_BATCHES:,} batches without an image"
            raise DataError(gave, do=do)
        new = Group(count=count)
        new.form = _form(batch, count, (), new)
        if any(_is_edges(each, count) for each in new.rest.values()):
            raise UsageError(f"the {loader} loader yields nodes and edges of graphs", do=GRAPHS)
        if not found:
            taken = arguments(tuple(batch) if isinstance(batch, list) else batch)
        weight = sum(each.nbytes for each in _tensors(list(new.columns.values())))
        if kept >= images or (found and size_in_bytes + weight > MOST_BYTES):
            break
        found.append(new)
        size_in_bytes += weight
        kept += count
    sizes = tuple(each.count for each in found)
    if kept < 2:
        raise DataError(f"the {loader} loader gave {'one image' if found else 'no batch'}", do=do)
    groups, place = grouped(found, taken)
    parts = [(each.form, each.joined(), each.rest) for each in groups]
    return Collected(loader, parts, place, sizes, device, single and max(sizes) > 1)


def _is_dataset(source: Any) -> bool:
    """Whether it has examples where a loader has batches."""
    match source:
        case [[Tensor(), float() | int()], *_]:
            return True
        case _:
            return isinstance(source, Dataset)


# --- parts of a batch -------------------------------------------------------------------------


def _count_of(batch: Any, loader: Loader) -> int:
    """How many examples it holds: rows of its first tensor, or the length of its first list."""
    parts = [batch]
    if isinstance(batch, Mapping):
        parts = list(batch.values())
    elif isinstance(batch, list | tuple):
        parts = list(batch)
    tensors = [each for each in parts if isinstance(each, Tensor) and each.ndim]
    if tensors:
        return len(tensors[0])
    for part in parts:  # targets of a detector
        if isinstance(part, list | tuple) and part and isinstance(part[0], Mapping):
            return len(part)
    inner = [part for part in parts if isinstance(part, Mapping | tuple) and part]
    if inner:
        return _count_of(inner[0], loader)
    lists = [each for each in parts if isinstance(each, list)]
    if _tensors(lists):
        return len(lists[0])
    do = GRAPHS if hasattr(batch, "edge_index") else EXPECTED
    raise UsageError(f"the {loader} loader yields {described(batch)}", do=do)


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in it, whatever it is."""
    return [each for each in tree_leaves(value) if isinstance(each, Tensor)]


def _is_edges(value: Any, count: int) -> bool:
    """Whether it numbers a batch's rows, two by two, as edge_index, (2, edges), does: in other
    batches these would be other rows."""
    if not isinstance(value, Tensor) or value.dtype != torch.long or value.ndim != 2:
        return False
    return len(value) == 2 < value.numel() and bool(((value >= 0) & (value < count)).all())


def _form(value: Any, count: int, path: Path, group: Group) -> Any:
    """The form of a batch of so many examples; its parts are put into the group, copied: some
    loaders fill the same memory again."""
    if isinstance(value, Tensor) and value.ndim and len(value) == count:
        group.columns[path] = [value.detach().to("cpu", copy=True)]
    elif isinstance(value, list | tuple) and path and len(value) == count and count > 1:
        group.columns[path] = [list(map(_plain, value))]
    elif isinstance(value, Mapping):
        return {k: _form(each, count, (*path, k), group) for k, each in value.items()}
    elif isinstance(value, list | tuple):
        return tuple(_form(each, count, (*path, k), group) for k, each in enumerate(value))
    else:
        group.rest[path] = _plain(value)
    return Part(path)


def _plain(value: Any) -> Any:
    """The value with dicts in the place of other mappings, which torch's pytree does not look into,
    as transformers' BatchEncoding."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return tree_map_only(Mapping, _plain, value, is_leaf=lambda each: isinstance(each, Mapping))


# --- which batches ----------------------------------------------------------------------------


def _spread(source: Any, loader: Loader, images: int, seed: int) -> tuple[Iterable[Any], bool]:
    """Some of a loader's batches, from all parts of it, where they can be had one by one; and
    whether it has batches of one."""
    if isinstance(source, list | tuple):
        lengths = [_length(batch, loader) for batch in source]
        return _strata(source, lengths, images, seed), 1 in lengths
    if not isinstance(source, DataLoader) or isinstance(source.dataset, IterableDataset):
        return source, False
    if not isinstance(source.batch_sampler, BatchSampler):
        return source, False
    # No more than whole passes have: some samplers never end.
    batches = list(islice(source.batch_sampler, _count(source)))
    lengths = [len(batch) for batch in batches]
    chosen = _strata(batches, lengths, images, seed)
    if len(chosen) == len(batches):
        return source, 1 in lengths
    part: DataLoader[Any] = DataLoader(
        source.dataset,
        batch_sampler=chosen,
        collate_fn=source.collate_fn,
        num_workers=source.num_workers,
        worker_init_fn=source.worker_init_fn,
        timeout=source.timeout,
        multiprocessing_context=source.multiprocessing_context,
        generator=source.generator,
    )
    return part, 1 in lengths


def _strata(batches: Sequence[Any], lengths: Sequence[int], images: int, seed: int) -> Any:
    """Batches of which `images` are enough, in their order: a random one of each of as many equal
    parts. Every n-th would be of one kind where kinds alternate."""
    full = lengths[:-1] or lengths  # the last one may be smaller
    wanted = min(-(-images * len(full) // (sum(full) or 1)), len(batches))
    random = torch.Generator().manual_seed(seed)
    drawn = torch.rand(wanted, generator=random, dtype=torch.float64).tolist()
    return [batches[int((k + drawn[k]) * len(batches) / wanted)] for k in range(wanted)]


def _count(loader: DataLoader[Any]) -> int:
    """How many batches it says it has; where it does not, as many as its images fill."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return -(-len(loader.dataset) // loader.batch_sampler.batch_size)  # type: ignore


def _length(batch: Any, loader: Loader) -> int:
    try:
        return _count_of(batch, loader)
    except UsageError:  # said when it is its turn
        return 0
