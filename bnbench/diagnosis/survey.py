"""How the layers of a network use statistics, seen in one batch: where others can be put in.

A layer that is not torch's is tried out: with the batch's statistics in the place of its running
ones, its inference must give what its training gives. Else statistics of its own, as of a masked
layer, are what it adds to its running ones in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from bnbench.errors import UsageError
from bnbench.probes.interception import (
    Use,
    class_name,
    holding,
    input_of,
    intercepted,
    tensors_in,
    tensors_restored,
)
from bnbench.probes.pooled import PooledStatistics, moments
from bnbench.probes.statistics import batch_statistics, given_statistics, modes_restored
from bnbench.running_statistics import has_statistics, tables

KNOWN = ("torch", "bnbench")
"""Packages whose layers need no trial."""

ALIKE = 1e-3
"""Of their norm: outputs that differ by less are the same."""

ROUNDED = 1e-5
"""How far values may be from each other in fp32, relative to their size."""

Layers: TypeAlias = Mapping[str, nn.Module]
Pools: TypeAlias = dict[str, PooledStatistics]

Manner: TypeAlias = Literal["exchanged", "fixed", "followed", "unknown"]
"""How a layer is played: others' statistics can be put in; it uses its running ones in training,
too; training does something else, but its running statistics are a moving average; nor that."""

Weights: TypeAlias = tuple[float, float]
"""Of a new batch in a layer's running mean and in its running variance."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The layers of a network with running statistics, by name, and how each is played.

    `calls`: how often a forward pass uses each, in order. `chunked`: a pass may hold many batches.
    `weights`: of the layers that are "followed".
    """

    model: nn.Module
    layers: Layers
    manners: Mapping[str, Manner]
    calls: Mapping[str, int]
    chunked: bool
    weights: Mapping[str, Weights]

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
        if only is not None:
            with batch_statistics(self.model, size, layers=only) as pools:
                yield pools
            return
        layers, watched = self.of("exchanged"), self.of("fixed")
        own = {name: PooledStatistics() for name in self.of("followed", "unknown")}
        calls: Counter[str] = Counter()

        def add(name: str, x: Tensor, before: Kept) -> None:
            """Pool a batch's statistics, from what they have made of the running ones."""
            if name not in self.weights:
                return
            after = _kept(self.layers[name])
            mean, variance = (
                (new - (1 - weight) * old) / weight
                for old, new, weight in zip(before, after, self.weights[name], strict=True)
            )
            own[name].add_call(calls[name], mean[None], variance[None], x[:, 0].numel())
            calls[name] += 1

        with ExitStack() as stack:
            stack.enter_context(self.model.register_forward_pre_hook(lambda *_: calls.clear()))
            for name in own:
                stack.enter_context(_played_by_itself(self.layers[name], partial(add, name)))
            pools = stack.enter_context(
                batch_statistics(self.model, size, layers=layers, watched=watched)
            )
            yield pools | {name: own[name] for name in self.of("followed")}

    def given(self, pools: Pools, *, by_call: bool = False) -> AbstractContextManager[None]:
        """The network in inference with these statistics."""
        return given_statistics(self.model, pools, layers=self.known, by_call=by_call)


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
    manners |= dict.fromkeys(_traced(layers, calls, model, run), "fixed")
    weights: dict[str, Weights] = {}
    trains = _in_training_mode(network)
    with ExitStack() as hooks:
        for name, layer in layers.items():
            if layer not in trains or manners[name] == "fixed":
                manners[name] = "fixed"
            elif calls[name] and type(layer).__module__.partition(".")[0] not in KNOWN:
                trial = partial(_tried, name, manners, weights)
                hooks.enter_context(layer.register_forward_pre_hook(trial, with_kwargs=True))
        run()
    by_itself = {"followed", "unknown"} & {*manners.values()}
    chunked = examples <= {images} and not in_training and not by_itself
    return Survey(model, layers, manners, calls, chunked, weights)


def _traced(
    layers: Layers, calls: Mapping[str, int], model: nn.Module, run: Callable[[], object]
) -> set[str]:
    """Layers inside of TorchScript that use running statistics in training mode, too, as what was
    traced in eval mode does. Raises UsageError where one does not use any as torch's do."""
    scripted = {name: each for name, each in layers.items() if isinstance(each, ScriptModule)}
    for name, layer in scripted.items():
        if not calls.get(name) and "BatchNorm" not in class_name(layer):
            raise UsageError(
                f"{name} ({class_name(layer)}) is in TorchScript, and does not use its statistics "
                "by torch's batch_norm: others cannot be put in",
                do="give the nn.Module that it was made from",
            )
    running: set[str] = set()

    def look(use: Use) -> None:
        if not use.own:
            running.add(use.layer)

    if scripted:
        with ExitStack() as stack:
            for layer in scripted.values():
                stack.enter_context(_training(layer))
            stack.enter_context(intercepted(model, scripted, look))
            run()
    return running


def _in_training_mode(network: nn.Module) -> set[nn.Module]:
    """The modules that are in training mode after `train()`, which some override."""
    with modes_restored(network):
        network.train()
        return {module for module in network.modules() if module.training}


Kept: TypeAlias = list[Tensor]
"""Running mean and running variance, (C,), in fp64."""


def _kept(layer: nn.Module) -> Kept:
    return [tensor.detach().double().flatten().clone() for _, _, tensor in tables(layer)]


def _tried(
    name: str,
    manners: dict[str, Manner],
    weights: dict[str, Weights],
    layer: nn.Module,
    args: Any,
    kwargs: Any,
) -> None:
    """Note how the layer is played, from what its forward gives for these inputs."""
    called, kept = input_of(layer, args, kwargs), [tensor for _, _, tensor in tables(layer)]
    if called is None:
        manners[name] = "unknown"
        return
    x, forward = called
    normalized: list[Tensor] = []

    def output() -> Any:
        return forward(x.clone())  # it may change it in place

    def from_initial(fill: float) -> Kept:
        """What training makes of running statistics that are all the same."""
        initial = [torch.full_like(each, fill) for each in kept]
        with holding(layer, *initial), _training(layer):
            output()
            return _kept(layer)

    with intercepted(layer, {name: layer}, lambda use: normalized.append(use.x.clone())):
        inference = output()
    # A layer may convolve, too, and then call F.batch_norm: its input is not what it normalizes.
    at = normalized[0] if normalized else x
    if at.ndim < 2 or at.shape[1] != kept[0].numel():
        manners[name] = "unknown"
        return
    of_zeros, of_ones = from_initial(0.0), from_initial(1.0)
    mean, variance, _ = moments(at)
    with _training(layer):
        training = output()
    with holding(layer, mean[0], variance[0]):
        exchanged = output()
    if not any(each.any() for each in of_zeros) and _alike(training, inference):
        manners[name] = "fixed"
        return
    found = _moving_average(of_zeros, of_ones)
    # A mask may have left out nothing here, and does in another batch.
    more = found and sum(isinstance(each, Tensor) for each in (*args, *kwargs.values())) > 1
    if _alike(training, exchanged) and not more:
        manners[name] = "exchanged"
    elif found:
        manners[name], weights[name] = "followed", found
    else:
        manners[name] = "unknown"


def _moving_average(of_zeros: Kept, of_ones: Kept) -> Weights | None:
    """The weights of a new batch, where running statistics are a moving average: what is left of
    initial values is the same share in all channels."""
    found = []
    for zeros, ones in zip(of_zeros, of_ones, strict=True):
        left = ones - zeros
        share = left.mean().item()
        scale = 1 + max(zeros.abs().max().item(), ones.abs().max().item())
        if not (0 <= share < 1 - ALIKE and (left - share).abs().max() <= ROUNDED * scale):
            return None
        found.append(1 - share)
    return found[0], found[1]


def _alike(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    difference = (one.double() - other.double()).norm()
    return bool(difference <= ALIKE * other.double().norm())


@contextmanager
def _training(layer: nn.Module) -> Iterator[None]:
    """The layer in training mode; flag and buffers are restored on leaving."""
    was = layer.training
    layer.training = True
    try:
        with tensors_restored([*tables(layer), *tensors_in([layer], "_buffers")]):
            yield
    finally:
        layer.training = was


@contextmanager
def _played_by_itself(layer: nn.Module, add: Callable[[Tensor, Kept], object]) -> Iterator[None]:
    """The layer's forward, in training mode, whatever mode it is in. `add`: is told its input and
    its running statistics before, while it has those after."""
    its_own, forward = vars(layer).get("forward"), layer.forward

    def played(*args: Any, **kwargs: Any) -> Any:
        called, before = input_of(layer, args, kwargs), _kept(layer)
        with _training(layer):
            output = forward(*args, **kwargs)
            if called is not None:
                add(called[0], before)
            return output

    vars(layer)["forward"] = played
    try:
        yield
    finally:
        del vars(layer)["forward"]
        if its_own is not None:
            vars(layer)["forward"] = its_own
