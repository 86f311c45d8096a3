"""Another normalization in the place of the BatchNorm layers of a network, whoever wrote it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import gcd
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from bnbench.errors import ArgumentError
from bnbench.models.exchangeable import trouble
from bnbench.running_statistics import STATISTICS

SHOWN = 3  # layers that an error names of those that share a reason; reasons


@dataclass(frozen=True, slots=True)
class Exchange:
    """What became of one layer.

    `name`: the first under which the network has it. `old`, `new`: classes. `carried`: what the new
    one has of the old: weight (γ), bias (β), running statistics. `biased`: the layer before it (of
    one that is used several times: the layers), where that got a bias; else empty.
    """

    name: str
    old: str
    new: str
    carried: tuple[str, ...]
    biased: str


class Swapped(tuple[Exchange, ...]):
    """The exchanged layers, in the order of the network; it prints one a line."""

    __slots__ = ()

    def __repr__(self) -> str:
        width = max((len(each.name) for each in self), default=0)
        return "\n".join(
            f"{each.name:{width}}  {each.old} → {each.new}; "
            f"carried: {', '.join(each.carried) or 'nothing'}"
            + (f"; {each.biased} got a bias" if each.biased else "")
            for each in self
        )


class Exchanged(nn.Sequential):
    """The new layer, called `norm`, and then what the old one had inside: an activation.

    x is (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W). To a normalization, positions along
    all axes are one set: the layers see (N, C) or (N, C, H, W). Raises ArgumentError with the name
    of the old layer for shapes that the new one cannot normalize.
    """

    def __init__(self, parts: OrderedDict[str, nn.Module], name: str = "") -> None:
        super().__init__(parts)
        self.name = name

    def forward(self, input: Tensor) -> Tensor:
        try:
            y = cast(Tensor, super().forward(_as_images(input)))  # type: ignore[no-untyped-call]
        except ArgumentError as error:
            hint = "" if error.hint is None else f" ({error.hint})"
            said = f"{self.name}: {error}{hint}"
            raise ArgumentError(said, argument=error.argument) from error
        return y if input.ndim in (2, 4) else y.reshape(input.shape)


def _as_images(x: Tensor) -> Tensor:
    """(N, C, L) as (N, C, L, 1), (N, C, D, H, W) as (N, C, D, H·W); others as they are."""
    return x if x.ndim in (2, 4) else x.reshape(*x.shape[:3], -1)


MakeNew = Callable[[_BatchNorm], nn.Module]


def swap_norms(
    model: nn.Module, make_new: MakeNew, *, example: Any = None, biases: bool = True
) -> tuple[nn.Module, Swapped]:
    """Exchange every BatchNorm layer for what `make_new` makes for it; an identity: for nothing.

    The network is changed in place and returned (another module only where it is one BatchNorm
    layer itself); where anything is refused, nothing is changed. A layer under two names stays one
    layer. The new one keeps the old one's mode, device and dtype, and its parameters γ and β
    themselves, so that an optimizer made before still has them: where it has parameters `weight`
    and `bias` of shape (C,) that start at 1 and 0. Running statistics are carried where it has such
    and they have been measured. What is fused with the old layer follows the new one.

    A network whose β has nowhere to go loses a shift. The weight layer directly before gets a bias
    then, which starts at 0, if it has none; `example` is an input (a tuple: several), which finds
    that layer in a forward pass in eval mode. Without `biases` none does.

    Raises ArgumentError with the names of what cannot be exchanged, and why.
    """
    names: dict[nn.Module, str] = {}
    parents = {child: parent for parent in model.modules() for child in parent.children()}
    for name, module in model.named_modules():
        of_torch = isinstance(module, _NormBase)  # InstanceNorm stays as it is
        keeps = all(isinstance(getattr(module, each, None), Tensor) for each in STATISTICS)
        if isinstance(module, _BatchNorm) or (keeps and not of_torch):
            names[module] = name or type(module).__name__
    if not names:
        raise ArgumentError("the network has no BatchNorm layer to exchange", argument="norm")
    plan = _Plan(names)
    for old in names:
        plan.add(old, parents.get(old, model), make_new)
    before: Mapping[nn.Module, list[str]] = {}
    lacking = [old for old, new in plan.new.items() if biases and _lacks_shift(old, new)]
    if example is not None or (lacking and not plan.refused):
        before = plan.trace(model, example, lacking)
    plan.raise_refused()
    for each in dict.fromkeys(chain(*before.values())):
        layer = model.get_submodule(each)
        weight: Any = layer.weight
        layer.bias = nn.Parameter(weight.new_zeros(getattr(layer, "out_channels", len(weight))))
    swapped = Swapped(
        Exchange(
            names[old],
            type(old).__name__,
            type(new).__name__,
            _carry(old, new),
            " and ".join(before.get(old, ())),
        )
        for old, new in plan.new.items()
    )
    placed = {old: _in_place_of(old, new, names[old]) for old, new in plan.new.items()}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in placed:
                setattr(parent, name, placed[child])
    return placed.get(model, model), swapped


class _Plan:
    """New layers by old one, and what was refused: a reason by name."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        self.names = names
        self.new: dict[nn.Module, nn.Module] = {}
        self.refused: dict[str, ArgumentError] = {}

    def refuse(self, old: nn.Module, reason: str | ArgumentError) -> None:
        error = ArgumentError(reason, argument="norm") if isinstance(reason, str) else reason
        self.refused.setdefault(self.names[old], error)

    def add(self, old: nn.Module, parent: nn.Module, make_new: MakeNew) -> None:
        """Make the new layer, if the old one is what it says it is."""
        reason = trouble(old, parent)
        if reason is not None:
            return self.refuse(old, reason)
        assert isinstance(old, _BatchNorm)
        try:
            new = make_new(old)
        except ArgumentError as error:
            return self.refuse(old, error)
        if not isinstance(new, nn.Module):
            return self.refuse(old, f"what was made for it is a {type(new).__name__}, no module")
        if _keeps_statistics(new) and old.running_mean is None:
            reason = f"it has no running statistics, which {type(new).__name__} needs"
            return self.refuse(old, reason)
        for like in (*old.parameters(recurse=False), *old.buffers(recurse=False))[:1]:
            new.to(like.device, like.dtype)
        self.new[old] = new.train(old.training)
        return None

    def trace(
        self, model: nn.Module, example: Any, lacking: list[nn.Module]
    ) -> dict[nn.Module, list[str]]:
        """The weight layers without a bias before each of those that lack a shift, by name; refused
        is what cannot normalize the shapes that the example has there."""
        if example is None:
            self.refuse(
                lacking[0],
                ArgumentError(
                    "the layer before it needs a bias, for the new one has no shift",
                    argument="norm",
                    hint="give an input, by which that layer is found: example=x",
                ),
            )
            return {}
        weighted: dict[nn.Module, str] = {
            module: name
            for name, module in model.named_modules()
            if isinstance(module, _ConvNd | nn.Linear)
        }
        found: dict[nn.Module, list[str]] = {}
        for old, x, source in _seen(model, example, weighted, self.new):
            if old in lacking and source is not None and source.bias is None:
                names = found.setdefault(old, [])
                names += [weighted[source]] * (weighted[source] not in names)
            sets = getattr(self.new[old], "sets", None)
            if sets is not None and not isinstance(self.new[old], _NormBase):
                try:
                    sets(_as_images(x).shape)
                except ArgumentError as error:
                    self.refuse(old, error)
        return found

    def raise_refused(self) -> None:
        """Raises ArgumentError with what was refused: layers that share a reason together."""
        if not self.refused:
            return
        names: dict[str, list[str]] = {}
        for name, error in self.refused.items():
            names.setdefault(str(error), []).append(name)
        said = [f"{_shown(layers, ', ')}: {reason}" for reason, layers in names.items()]
        (name, first), *_ = self.refused.items()
        hint = first.hint
        if first.argument == "groups" and name not in {self.names[old] for old in self.new}:
            common = gcd(*(getattr(old, "num_features", 0) for old in self.names))
            divisors = [str(each) for each in range(1, common + 1) if common % each == 0]
            hint = f"these divide the channels of every layer: {', '.join(divisors)}"
        raise ArgumentError(_shown(said, "; "), argument=first.argument, hint=hint)


def _shown(each: list[str], between: str) -> str:
    more = len(each) - SHOWN
    return between.join(each[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.running_mean is not None


def _lacks_shift(old: nn.Module, new: nn.Module) -> bool:
    """Whether β has nowhere to go, though nobody has said that there be none (affine)."""
    if old.bias is None or old.bias.is_meta or not getattr(new, "affine", True):
        return False
    return not any(each.numel() == old.num_features and not each.any() for each in new.parameters())


@torch.no_grad()
def _seen(
    model: nn.Module,
    example: Any,
    weighted: Mapping[nn.Module, str],
    norms: Mapping[nn.Module, nn.Module],
) -> list[tuple[nn.Module, Tensor, Any]]:
    """Each norm with an input of it and the weight layer that made that input, or None, as a
    forward pass in eval mode shows: names and the order of registration do not tell. Where that
    passes by some, as by auxiliary heads, one in training mode follows."""
    # The outputs are kept, or a later tensor could have an earlier one's id.
    made: dict[int, tuple[nn.Module, Any]] = {}
    found: list[tuple[nn.Module, Tensor, Any]] = []

    def remember(layer: nn.Module, _: object, output: Any) -> None:
        made[id(output)] = (layer, output)

    def look_up(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append((norm, inputs[0], made.get(id(inputs[0]), (None, None))[0]))

    handles = [each.register_forward_hook(remember) for each in weighted]
    handles += [each.register_forward_pre_hook(look_up) for each in norms]
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(each, each.clone()) for each in model.buffers()]
    try:
        with torch.random.fork_rng():
            for training in (False, True):
                if not norms.keys() <= {norm for norm, *_ in found}:
                    model.train(training)(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return found


def _carry(old: Any, new: Any) -> tuple[str, ...]:
    """What the new layer has of the old one from now on."""
    carried = []
    for name, neutral in (("weight", 1.0), ("bias", 0.0)):
        theirs, ours = getattr(old, name), getattr(new, name, None)
        if theirs is None or not isinstance(ours, nn.Parameter) or ours.shape != theirs.shape:
            continue
        if ours.is_meta or bool((ours == neutral).all()):  # else it means something else
            setattr(new, name, theirs)
            carried.append(name)
    if _keeps_statistics(new) and _measured(old):
        # A layer that counts its steps to change on the way begins at its beginning.
        counted = () if getattr(new, "changes_on_the_way", False) else ("num_batches_tracked",)
        for name in (*STATISTICS, *counted):
            setattr(new, name, getattr(old, name))
        carried.append("running statistics")
    return tuple(carried)


def _measured(old: Any) -> bool:
    """Whether running statistics are others than those of a new layer."""
    mean, variance = old.running_mean, old.running_var
    return not mean.is_meta and bool(mean.any() or (variance != 1.0).any())


def _in_place_of(old: nn.Module, new: nn.Module, name: str) -> nn.Module:
    """The new layer and what was fused with the old one."""
    parts = OrderedDict({} if isinstance(new, nn.Identity) else {"norm": new})
    parts |= {name: part for name, part in old._modules.items() if part is not None}
    exchanged = Exchanged(parts, name) if parts else nn.Identity()
    exchanged.training = old.training
    return exchanged
