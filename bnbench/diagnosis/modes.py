"""What else than statistics differs between train() and eval(): one pass with everything but the
normalizations in training mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from bnbench.probes.interception import FUNCTIONS, class_name
from bnbench.probes.statistics import modes_restored
from bnbench.running_statistics import STATISTICS, has_statistics, tables

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


class InTraining(TorchFunctionMode):
    """While it is entered, dropout gives back its input. `by_function`: whether F.batch_norm was
    called in training with other statistics than those of these layers."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.of_layers = {id(tensor) for each in layers for *_, tensor in tables(each)}
        self.by_function = False

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in FUNCTIONS:
            given = {**dict(zip(FUNCTIONS[func], args, strict=False)), **kwargs}
            mean = given.get(STATISTICS[0])
            known = mean is None or id(mean) in self.of_layers
            self.by_function |= not known and bool(given.get("training"))
        return func(*args, **kwargs)


def drops(module: nn.Module) -> bool:
    """Whether a module leaves something out by chance."""
    return any(each in class_name(module).lower() for each in DROPS)


@contextmanager
def in_training(network: nn.Module, *, dropout: bool) -> Iterator[InTraining | None]:
    """Every module in training mode but the normalizations, whose statistics are given by others,
    and, without `dropout`, what leaves something out by chance. Flags are restored on leaving."""
    mode = None if dropout else InTraining(filter(has_statistics, network.modules()))
    with modes_restored(network), mode or nullcontext():
        for module in network.modules():
            still = has_statistics(module) or isinstance(module, _NormBase)
            module.training = not still and (dropout or not drops(module))
        yield mode


def moved(network: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """The buffers that are not what they were."""
    now = dict(network.named_buffers())
    return [name for name, value in before.items() if not torch.equal(value, now[name])]


def averages(names: Iterable[str]) -> bool:
    """Whether buffers of these names are the statistics of a layer, as moving_mean and
    moving_variance are in layers that come from TensorFlow."""
    parts = [name.rpartition(".") for name in names]
    return bool({at for at, _, leaf in parts if "mean" in leaf}
                & {at for at, _, leaf in parts if "var" in leaf or "std" in leaf})  # fmt: skip


def losses(network: nn.Module, batch: Any) -> Any:
    """How a batch goes through a network that gives losses in training mode only."""
    with in_training(network, dropout=False):
        if isinstance(batch, Mapping):
            return network(**batch)
        return network(*batch) if isinstance(batch, tuple) else network(batch)
