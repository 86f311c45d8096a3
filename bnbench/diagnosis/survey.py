"""How the layers of a network use statistics, seen in one batch: where others can be put in.

A layer that is not torch's is tried out: with the batch's statistics in the place of its running
ones, its inference must give what its training gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from bnbench.probes.interception import (
    Use,
    has_statistics,
    holding,
    input_of,
    intercepted,
    means,
    tables,
)
from bnbench.probes.pooled import PooledStatistics, moments
from bnbench.probes.statistics import batch_statistics, given_statistics, modes_restored

KNOWN = ("torch", "bnbench")
"""Packages whose layers need no trial."""

ALIKE = 1e-3
"""Of their norm: outputs that differ by less are the same."""

Layers: TypeAlias = Mapping[str, nn.Module]
Pools: TypeAlias = dict[str, PooledStatistics]

Manner: TypeAlias = Literal["exchanged", "fixed", "followed", "unknown"]
"""How a layer is played: others' statistics can be put in; it uses its running ones in training,
too; training does something else as well, but its running mean follows its inputs; nor that."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The layers of a network with running statistics, by name, and how each is played.

    `calls`: how often a forward pass uses each, in order. `chunked`: a pass may hold many batches.
    """

    model: nn.Module
    layers: Layers
    manners: Mapping[str, Manner]
    calls: Mapping[str, int]
    chunked: bool

    def of(self, *manners: Manner) -> dict[str, nn.Module]:
        """The layers that are played so."""
        return {name: layer for name, layer in self.layers.items() if self.manners[name] in manners}

    @property
    def known(self) -> dict[str, nn.Module]:
        """Those whose population statistics can be taken."""
        return self.of("exchanged", "fixed", "followed")

    @contextmanager
    def batch(self, size: int, only: Layers | None = None) -> Iterator[Pools]:
        """The network as in training, in batches of `size` images; `only`: these layers."""
        with ExitStack() as stack:
            if only is None:
                for layer in self.of("followed", "unknown").values():
                    stack.enter_context(_played_by_itself(layer))
            layers = self.of("exchanged") if only is None else only
            watched = self.of("fixed", "followed") if only is None else {}
            yield stack.enter_context(
                batch_statistics(self.model, size, layers=layers, watched=watched)
            )

    @contextmanager
    def given(self, pools: Pools, *, by_call: bool = False) -> Iterator[None]:
        """The network in inference with these statistics."""
        with given_statistics(self.model, pools, layers=self.known, by_call=by_call):
            yield


def survey(model: nn.Module, network: nn.Module, images: int, run: Callable[[], object]) -> Survey:
    """See how `network`, a part of `model`, uses statistics while `run` passes so many images
    through `model`, which is in eval mode."""
    layers = {name: each for name, each in network.named_modules() if has_statistics(each)}
    calls: Counter[str] = Counter()
    examples: set[int] = set()
    in_training: set[str] = set()

    def look(use: Use) -> None:
        calls[use.layer] += 1
        examples.add(len(use.x))
        if use.own and not use.each_image:
            in_training.add(use.layer)

    with intercepted(model, layers, look):
        run()
    manners: dict[str, Manner] = dict.fromkeys(layers, "exchanged")
    trains = _in_training_mode(network)
    with ExitStack() as hooks:
        for name, layer in layers.items():
            if layer not in trains:
                manners[name] = "fixed"
            elif calls[name] and type(layer).__module__.partition(".")[0] not in KNOWN:
                trial = partial(_tried, name, manners)
                hooks.enter_context(layer.register_forward_pre_hook(trial, with_kwargs=True))
        run()
    by_itself = {"followed", "unknown"} & {*manners.values()}
    chunked = examples <= {images} and not in_training and not by_itself
    return Survey(model, layers, manners, calls, chunked)


def _in_training_mode(network: nn.Module) -> set[nn.Module]:
    """The modules that are in training mode after `train()`, which some override."""
    with modes_restored(network):
        network.train()
        return {module for module in network.modules() if module.training}


def _tried(name: str, manners: dict[str, Manner], layer: nn.Module, args: Any, kwargs: Any) -> None:
    """Note how the layer is played, from what its forward gives for these inputs."""
    called, kept = input_of(layer, args, kwargs), [tensor for _, _, tensor in tables(layer)]
    if called is None or called[0].ndim < 2 or called[0].shape[1] != kept[0].numel():
        manners[name] = "unknown"
        return
    x, forward = called

    def output() -> Any:
        return forward(x.clone())  # it may change it in place

    inference = output()
    mean, variance, _ = moments(x)
    with holding(layer, torch.zeros_like(kept[0]), torch.ones_like(kept[1])), _training(layer):
        output()
        moved = means(layer).double().flatten()
    with _training(layer):
        training = output()
    with holding(layer, mean[0], variance[0]):
        exchanged = output()
    if not moved.any() and _alike(training, inference):
        manners[name] = "fixed"
    elif _alike(training, exchanged):
        manners[name] = "exchanged"
    else:
        follows = torch.nn.functional.cosine_similarity(moved, mean[0].double(), dim=0)
        manners[name] = "followed" if follows > 1 - ALIKE else "unknown"


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    difference = (one.double() - other.double()).norm()
    return bool(difference <= ALIKE * other.double().norm())


@contextmanager
def _training(layer: nn.Module) -> Iterator[None]:
    """The layer in training mode; flag and buffers are restored on leaving."""
    was = layer.training
    kept = [(table, name, tensor, tensor.clone()) for table, name, tensor in tables(layer)]
    buffers: dict[str, Any] = layer._buffers
    kept += [
        (buffers, name, tensor, tensor.clone())
        for name, tensor in buffers.items()
        if tensor is not None
    ]
    layer.training = True
    try:
        yield
    finally:
        layer.training = was
        for table, name, tensor, value in kept:
            table[name] = tensor.copy_(value)


@contextmanager
def _played_by_itself(layer: nn.Module) -> Iterator[None]:
    """The layer's forward, in training mode, whatever mode it is in."""
    its_own, forward = vars(layer).get("forward"), layer.forward

    def played(*args: Any, **kwargs: Any) -> Any:
        with _training(layer):
            return forward(*args, **kwargs)

    vars(layer)["forward"] = played
    try:
        yield
    finally:
        del vars(layer)["forward"]
        if its_own is not None:
            vars(layer)["forward"] = its_own
