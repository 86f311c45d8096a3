"""What else than statistics differs between train() and eval(): one pass with everything but the
normalizations in training mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from bnbench.probes.interception import class_name
from bnbench.probes.statistics import modes_restored
from bnbench.running_statistics import has_statistics

DROPOUTS: tuple[Callable[..., Tensor], ...] = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
)

DROPS = ("drop", "stochasticdepth")
"""What names of modules that leave something out by chance hold: nn.Dropout, timm's DropPath,
torchvision's StochasticDepth."""


class _NoDropout(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in DROPOUTS:
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


def drops(module: nn.Module) -> bool:
    """Whether a module leaves something out by chance."""
    return any(each in class_name(module).lower() for each in DROPS)


@contextmanager
def in_training(network: nn.Module, *, dropout: bool) -> Iterator[None]:
    """Every module in training mode but the normalizations, whose statistics are given by others,
    and, without `dropout`, what leaves something out by chance. Flags are restored on leaving."""
    with modes_restored(network), nullcontext() if dropout else _NoDropout():
        for module in network.modules():
            still = has_statistics(module) or isinstance(module, _NormBase)
            module.training = not still and (dropout or not drops(module))
        yield


def losses(network: nn.Module, batch: Any) -> Any:
    """How a batch goes through a network that gives losses in training mode only."""
    with in_training(network, dropout=False):
        if isinstance(batch, Mapping):
            return network(**batch)
        return network(*batch) if isinstance(batch, tuple) else network(batch)
