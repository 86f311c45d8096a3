"""A foreign network: its logits in one shape, and its state as it was."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader

from bnbench.diagnosis.loader import described
from bnbench.errors import BnbenchError, UsageError

PREFIX = "network."
"""What comes before the names of the network's own layers in a `Logits`."""


class Logits(nn.Module):
    """The network, with logits (N, classes) as its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        try:
            output = self.network(x)
        except BnbenchError:
            raise
        except Exception as error:
            shape = "×".join(map(str, x.shape))
            raise UsageError(
                f"the model raised {type(error).__name__} on inputs of shape {shape}: {error}",
                do="--debug shows where",
            ) from error
        logits = logits_of(output)
        if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
            shape = "×".join(map(str, logits.shape)) or "()"
            raise UsageError(
                f"the model gives outputs of shape {shape} for {len(x)} inputs",
                do="expected a number for each class and input: (inputs, classes), 2 or more",
            )
        return logits


def logits_of(output: Any) -> Tensor:
    """The output, its first tensor, or its `logits`. Raises UsageError."""
    match output:
        case Tensor():
            return output
        case [Tensor() as first, *_]:
            return first
        case {"logits": Tensor() as logits}:
            return logits
        case _ if isinstance(found := getattr(output, "logits", None), Tensor):
            return found
        case _:
            raise UsageError(
                f"the model gives {described(output)}",
                do="expected logits: a tensor, a tuple that begins with it, or `.logits`",
            )


def plain(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`. Raises UsageError for what cannot be looked into."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "the model is a TorchScript module: its layers cannot be looked into",
            do="give the nn.Module that it was made from",
        )
    tensors = (*model.named_parameters(), *model.named_buffers())
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise UsageError(
            f"{lazy[0]} has no shape yet: a lazy layer that has never seen an input",
            do="pass one batch through the model, or load a checkpoint, before it is diagnosed",
        )
    return model


@contextmanager
def untouched(model: nn.Module, loaders: Iterable[object]) -> Iterator[None]:
    """Give buffers, random numbers and the loaders' generators their state back on leaving.

    Flags and the layers' functions are given back by the probes themselves.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    generators = [torch.default_generator]
    if torch.cuda.is_available():
        generators += torch.cuda.default_generators
    for loader in loaders:
        if isinstance(loader, DataLoader):
            its = (loader.generator, getattr(loader.sampler, "generator", None))
            generators += [each for each in its if isinstance(each, torch.Generator)]
    states = [each.get_state() for each in generators]
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        with torch.no_grad():
            for buffer, kept in buffers:
                if not torch.equal(buffer, kept):
                    buffer.copy_(kept)
