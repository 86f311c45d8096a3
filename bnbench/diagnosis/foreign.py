"""What a user gives: a network, which is left as it was, and images of its loaders, kept."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from bnbench.diagnosis.result import Loader
from bnbench.errors import BnbenchError, DataError, UsageError
from bnbench.guard import ForeignCode, Raised, items
from bnbench.probes.interception import has_statistics
from bnbench.probes.statistics import Sample

MOST_BYTES = 2**30
"""Inputs that are kept of one loader, at most: 1,783 images of 3×224×224 in fp32. Two loaders of
them and a network fit into a laptop's memory."""

EMPTY_BATCHES = 1000
"""After so many batches without an image, more are not waited for."""

EXPECTED = "expected batches (inputs, labels): a tensor and the whole numbers of the classes"


# --- the network ------------------------------------------------------------------------------


class Logits(nn.Module):
    """The network, with logits (N, classes) as its output."""

    PREFIX = "network."  # before the names of the network's own layers

    def __init__(self, network: nn.Module, code: ForeignCode) -> None:
        super().__init__()
        self.network, self.code = network, code

    @property
    def norms(self) -> dict[str, nn.Module]:
        """BatchNorm layers by name, with running statistics and without; others, with them."""
        modules = self.network.named_modules()
        return {
            name: module
            for name, module in modules
            if isinstance(module, _BatchNorm) or has_statistics(module)
        }

    @property
    def tracking(self) -> bool:
        """Whether every BatchNorm layer has running statistics."""
        return all(map(has_statistics, self.norms.values()))

    def forward(self, x: Tensor) -> Tensor:
        fails = in_a_sentence("the model", UsageError, f" on inputs of shape {_shape(x)}")
        with self.code.entered(fails):
            output = self.network(x.clone())  # it may change them in place
        logits: Tensor | None
        match output:
            case Tensor():
                logits = output
            case [Tensor() as logits, *_] | {"logits": Tensor() as logits}:
                pass
            case _:
                logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise UsageError(
                f"the model gives {described(output)}",
                do="expected logits: a tensor, a tuple that begins with it, or `.logits`",
            )
        if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            raise UsageError(
                f"the model gives outputs of shape {_shape(logits)} for {len(x)} inputs",
                do="expected a number for each class and input: (inputs, classes), 2 or more",
            )
        return logits


def plain(model: object) -> nn.Module:
    """The module inside `torch.compile`. Raises UsageError for what cannot be looked into."""
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model is {described(model)}", do="expected a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "the model is a TorchScript module: its layers cannot be looked into",
            do="give the nn.Module that it was made from",
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and hasattr(module, "running_mean"):
            raise UsageError(
                f"{name}, or a module around it, is a TorchScript module: batch statistics cannot "
                "be put in",
                do="build the model with the nn.Module that it was made from",
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise UsageError(
                f"{name} has no values: it is on torch's meta device",
                do="give the model its weights before it is diagnosed (to_empty, load_state_dict)",
            )
        if is_lazy(tensor):
            raise UsageError(
                f"{name} has no shape yet: a lazy layer that has never seen an input",
                do="pass one batch through the model, or load a checkpoint, before it is diagnosed",
            )
    return model


@contextmanager
def untouched(model: nn.Module, loaders: Iterable[object]) -> Iterator[None]:
    """Give tensors, random numbers and the loaders' generators their state back on leaving.

    Flags and the layers' functions are given back by the probes themselves.
    """
    tensors = [
        (table, name, tensor, tensor.detach().clone())
        for module in model.modules()
        for table in cast(list[dict[str, Any]], [module._parameters, module._buffers])
        for name, tensor in table.items()
        if tensor is not None
    ]
    generators = []
    for loader in loaders:
        if isinstance(loader, DataLoader):
            its = (loader.generator, getattr(loader.sampler, "generator", None))
            generators += [each for each in its if isinstance(each, torch.Generator)]
    states = [each.get_state() for each in generators]
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count() if begun else 0)
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        with torch.no_grad():
            for table, name, tensor, kept in tensors:
                table[name] = tensor  # a layer may have put another in its place
                if not torch.equal(tensor, kept):
                    tensor.copy_(kept)


@contextmanager
def uncompiled() -> Iterator[None]:
    """What was compiled runs as it is written: statistics are put into calls, each of which would
    be compiled for every reading."""
    if "torch._dynamo" not in sys.modules:  # importing it takes a second
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


# --- the loaders ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Inputs (n, …) and labels (n,), in the loader's order; `sizes`: of its batches."""

    loader: Loader
    x: Tensor
    y: Tensor
    sizes: tuple[int, ...]
    device: torch.device

    def __len__(self) -> int:
        return len(self.y)

    @property
    def batch_size(self) -> int:
        """The loader's own: the commonest, as the last batch may be smaller."""
        return statistics.mode(self.sizes)

    def sample(self, positions: Tensor | None = None, *, as_they_come: bool = False) -> Sample:
        """The images at these positions, or all, in order.

        `as_they_come`: in the loader's batches, whatever size is asked for.
        """
        order = torch.arange(len(self)) if positions is None else positions

        def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
            for chosen in order.split(self.sizes if as_they_come else size):  # type: ignore[no-untyped-call]
                yield self.x[chosen].to(self.device), self.y[chosen]

        return Sample(split="train", images=len(order), batches=batches)


def collect(
    source: Iterable[Any], loader: Loader, images: int, device: torch.device, code: ForeignCode
) -> Collected:
    """The first whole batches that hold `images`, or as many as there are or as fit.

    Of a `DataLoader` over a dataset with indices, and of a list, they are spread evenly: the first
    images of a dataset that is sorted by class are of one class. Raises UsageError, DataError.
    """
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    count, size_in_bytes = 0, 0
    fails = in_a_sentence(f"the {loader} loader", DataError)
    with code.entered(fails):
        spread = _spread(source, images)
    empty = 0
    for batch in items(spread, partial(code.entered, fails)):
        match batch:
            case [Tensor() as x, Tensor() as y, *_]:
                pass
            case _:
                raise UsageError(f"the {loader} loader yields {described(batch)}", do=EXPECTED)
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or y.is_floating_point() or y.is_complex():
            raise UsageError(
                f"the {loader} loader yields inputs of shape {_shape(x)} with {str(y.dtype)[6:]} "
                f"labels of shape {_shape(y)}",
                do=f"{EXPECTED}, one for each input",
            )
        if len(x) == 0:
            empty += 1
            if empty < EMPTY_BATCHES:
                continue
            raise DataError(
                f"the {loader} loader gave {EMPTY_BATCHES:,} batches without an image",
                do="give one that yields batches of several images",
            )
        if xs and x.shape[1:] != xs[0].shape[1:]:
            raise UsageError(
                f"the {loader} loader's inputs differ in shape: {_shape(xs[0][:1])} and "
                f"{_shape(x[:1])}, the first dimension aside",
                do="other batches are made of them, so they must fit: resize or crop the inputs",
            )
        if count >= images or (xs and size_in_bytes + x.nbytes > MOST_BYTES):
            break
        # Copies: some loaders fill the same memory again.
        xs.append(x.detach().to("cpu", copy=True))
        ys.append(y.detach().to("cpu", torch.long, copy=True))
        count, size_in_bytes = count + len(x), size_in_bytes + x.nbytes
    if count < 2:
        had = "no batch" if count == 0 else "one image"
        raise DataError(
            f"the {loader} loader gave {had}", do="give one that yields batches of several images"
        )
    return Collected(loader, torch.cat(xs), torch.cat(ys), tuple(map(len, ys)), device)


def _spread(source: Iterable[Any], images: int) -> Iterable[Any]:
    """Some of a loader's batches, evenly spread over it, where they can be had one by one."""
    if isinstance(source, list | tuple):
        return _evenly(source, [_length(batch) for batch in source], images)
    if not isinstance(source, DataLoader) or isinstance(source.dataset, IterableDataset):
        return source
    if not isinstance(source.batch_sampler, BatchSampler):
        return source
    # No more than whole passes have: some samplers never end.
    batches = list(islice(source.batch_sampler, _count(source)))
    chosen = _evenly(batches, [len(batch) for batch in batches], images)
    if len(chosen) == len(batches):
        return source
    return DataLoader(
        source.dataset,
        batch_sampler=chosen,
        collate_fn=source.collate_fn,
        num_workers=source.num_workers,
        worker_init_fn=source.worker_init_fn,
        timeout=source.timeout,
        multiprocessing_context=source.multiprocessing_context,
        generator=source.generator,
    )


def _evenly(batches: Sequence[Any], lengths: Sequence[int], images: int) -> Sequence[Any]:
    """Batches of which `images` are enough, spread over all of them, in their order."""
    usual = max(lengths, default=1) or 1
    wanted = min(-(-images // usual), len(batches))
    return [batches[(2 * k + 1) * len(batches) // (2 * wanted)] for k in range(wanted)]


def _count(loader: DataLoader[Any]) -> int:
    """How many batches it says it has; where it does not, as many as its images fill."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return -(-len(loader.dataset) // loader.batch_sampler.batch_size)  # type: ignore


def _length(batch: Any) -> int:
    match batch:
        case [Tensor() as x, *_] if x.ndim:
            return len(x)
        case _:
            return 1


def in_a_sentence(
    what: str, kind: type[BnbenchError], where: str = ""
) -> Callable[[Raised], BnbenchError]:
    """What says that the user's code has raised something, for `ForeignCode.entered`."""

    def sentence(raised: Raised) -> BnbenchError:
        if "DataLoader worker (pid" in raised.message:  # may come at any later time
            return DataError(
                f"a worker process of a loader has died{raised.message}",
                do="num_workers=0 shows where",
            )
        said = f"{raised.place}{what} raised {raised.kind}{where}{raised.message}"
        return kind(said, do="--debug shows the traceback")

    return sentence


def described(value: Any) -> str:
    """What something is, in a few words."""
    match value:
        case Tensor():
            return f"a tensor of shape {_shape(value)}"
        case [] | ():
            return f"an empty {type(value).__name__}"
        case list() | tuple():
            inside = ", ".join(type(each).__name__ for each in value[:4])
            return f"a {type(value).__name__} of {inside}{', …' if len(value) > 4 else ''}"
        case dict():
            keys = ", ".join(repr(key) for key in list(value)[:4])
            return f"a dict with {keys}{', …' if len(value) > 4 else ''}"
        case None:
            return "None"
        case _:
            return f"an object of type {type(value).__name__}"


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "()"
