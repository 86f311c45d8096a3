"""What a user gives: a network, which is left as it was, and words for what it does."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from bnbench.errors import BnbenchError, DataError, UsageError
from bnbench.guard import ForeignCode, Raised
from bnbench.probes.interception import tensors_in, tensors_restored
from bnbench.running_statistics import has_statistics

# --- the network ------------------------------------------------------------------------------


class Network(nn.Module):
    """The network, as batches go through it: its output is what the user's network gives.

    `route`: passes a batch through the user's network; None until one batch is seen.
    """

    def __init__(self, network: nn.Module, code: ForeignCode) -> None:
        super().__init__()
        self.network, self.code = network, code
        self.route: Callable[[nn.Module, Any], Any] | None = None

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

    def forward(self, batch: Any) -> Any:
        assert self.route is not None
        found = first_tensor(batch)
        where = ""
        if found is not None:
            vector = found.ndim < 2
            where = (
                f" on {found.numel()} values" if vector else f" on inputs of shape {shape(found)}"
            )
        with self.code.entered(in_a_sentence("the model", UsageError, where)):
            return self.route(self.network, batch)


def averages(network: nn.Module) -> str:
    """What averages weights, where the model is wrapped in it: torch's AveragedModel, timm's
    ModelEma; empty where it is not."""
    wraps = isinstance(getattr(network, "module", None), nn.Module)
    keeps = hasattr(network, "n_averaged") or hasattr(network, "decay")
    return type(network).__name__ if wraps and keeps else ""


def first_tensor(batch: Any) -> Tensor | None:
    """The first tensor in a batch."""
    if isinstance(batch, Tensor):
        return batch
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if not isinstance(batch, Mapping | list | tuple):
        return None
    return next((found for each in parts if (found := first_tensor(each)) is not None), None)


def plain(model: object) -> nn.Module:
    """The module inside `torch.compile`. Raises UsageError for what cannot be looked into."""
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model is {described(model)}", do="expected a torch.nn.Module")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and not hasattr(module, "training"):
            raise UsageError(
                f"{name or 'the model'} is a frozen TorchScript module: statistics are constants",
                do="give the nn.Module that it was made from, or a scripted one before "
                "torch.jit.freeze",
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
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise UsageError(
                f"{name} was made within torch.inference_mode(), which keeps it from being changed",
                do="make and load the model outside of it; a pass without gradients needs "
                "torch.no_grad() only",
            )
    return model


@contextmanager
def untouched(model: nn.Module, loaders: Iterable[object]) -> Iterator[None]:
    """Give tensors, random numbers and the loaders' generators their state back on leaving.

    Flags and the layers' functions are given back by the probes themselves.
    """
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
        with (
            tensors_restored(tensors_in(model.modules(), "_parameters", "_buffers")),
            torch.random.fork_rng(devices),
        ):
            yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


@contextmanager
def uncompiled() -> Iterator[None]:
    """What was compiled runs as it is written: statistics are put into calls, each of which would
    be compiled for every reading."""
    if "torch._dynamo" not in sys.modules:  # importing it takes a second
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


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
        return kind(said, do="see its traceback (bnbench diagnose: add --debug)")

    return sentence


def described(value: Any) -> str:
    """What something is, in a few words."""
    match value:
        case Tensor():
            return f"a tensor of shape {shape(value)}"
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


def shape(tensor: Tensor) -> str:
    """As it is written: 8×1×28×28."""
    return "×".join(map(str, tensor.shape)) or "()"
