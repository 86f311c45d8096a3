"""`bnbench.swap`: the normalizations of a network of the user's own, exchanged from Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnbench.assemble.model import make_norm, normalized
from bnbench.config import schema
from bnbench.config.sentences import validated_block
from bnbench.errors import ArgumentError, UsageError
from bnbench.models.swap import Swapped, swap_norms
from bnbench.wording import PATH_LENGTH, shortened

KEPT = ("eps", "momentum", "affine")


def swap(
    model: nn.Module,
    norm: str | Callable[..., nn.Module],
    *,
    example: Any = None,
    steps: int | None = None,
    **keys: Any,
) -> tuple[nn.Module, Swapped]:
    """Exchange every BatchNorm layer of a network for another normalization.

    `norm`: a kind, as in `norm: {kind: group}` of a configuration (`bnbench explain norms`), with
    its keys, or a class that is made as `norm(channels, **keys)`. Of eps, momentum and affine,
    those that are not given are the old layer's. `example`: an input of the network (a tuple:
    several); needed where the new layer has no shift, as "none", for the layer before it then gets
    a bias. `steps`: of the training to come, where a key is a fraction of it ("frozen").

    Returns the network, which is changed in place, and what was exchanged, which prints a line a
    layer. γ and β are carried to parameters `weight` and `bias` of shape (C,), running statistics
    where the new layer has such, an activation that is fused with the old layer stays, and a layer
    under two names stays one. The names of parameters get `.norm`: load a checkpoint before, or
    save one after.

    Raises UsageError that names what cannot be exchanged, and why; nothing is changed then.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model is a {type(model).__name__}", do="expected a torch.nn.Module")
    make_new = _of_kind(norm, keys, steps) if isinstance(norm, str) else _of_class(norm, keys)
    try:
        return swap_norms(model, make_new, example=example)
    except ArgumentError as error:
        raise UsageError(str(error), do=error.hint) from None
    except Exception as error:  # the network's own, of the example
        raise UsageError(
            f"the network fails with the example: {type(error).__name__}: "
            f"{shortened(' '.join(str(error).split()), PATH_LENGTH)}",
            do="give a batch of what it takes in a training step; a tuple where that are several",
        ) from error


def _of_class(norm: Callable[..., nn.Module], keys: dict[str, Any]) -> Callable[[Any], nn.Module]:
    way = (
        "give a kind, a class made as norm(channels), or lambda channels: nn.GroupNorm(8, channels)"
    )
    if isinstance(norm, nn.Module) or not callable(norm):
        raise UsageError(f"the norm is a {type(norm).__name__}", do=way)

    def make(old: _BatchNorm) -> nn.Module:
        try:
            return norm(old.num_features, **keys)
        except Exception as error:  # whatever code of someone else's raises
            called = getattr(norm, "__name__", "norm")
            said = f"{called}({old.num_features}) raised {type(error).__name__}: {error}"
            raise ArgumentError(said, argument="norm", hint=way) from error

    return make


def _of_kind(kind: str, keys: dict[str, Any], steps: int | None) -> Callable[[Any], nn.Module]:
    block, flaws = validated_block("norm", {**keys, "kind": kind}, whole=True)
    if flaws:
        raise UsageError("; ".join(flaw.message for flaw in flaws), do=flaws[0].hint)
    config = cast(schema.NormConfig, block)
    recipe = normalized(config, "relu", 1)
    if recipe.activates or recipe.make_conv is not nn.Conv2d:
        raise UsageError(
            f"{kind} changes more than the norm layers", do="give one that takes their place alone"
        )
    if recipe.placement == "after":
        raise UsageError(
            "the network decides itself where its norms stand", do="leave placement out"
        )
    fractions = {_made(config, each) for each in (1, 10**6)}
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise UsageError(f"steps={steps!r}", do="give a whole number, from 1 on")
    if steps is None and len(fractions) > 1:
        raise UsageError(f"{kind} changes on the way", do="give steps=, those of the training")

    def make(old: _BatchNorm) -> nn.Module:
        kept = {key: getattr(old, key) for key in KEPT if hasattr(config, key) and key not in keys}
        layer = make_norm(config.model_copy(update=kept), steps or 0)
        return nn.Identity() if layer is None else layer(old.num_features)

    return make


def _made(config: schema.NormConfig, steps: int) -> str:
    """What a layer would be made with in a run of so many steps."""
    layer = make_norm(config, steps)
    return str(layer.keywords) if isinstance(layer, partial) else ""
