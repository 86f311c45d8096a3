"""Where layers keep their running statistics, whoever wrote the layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var")


def tables(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Where a module keeps its running mean and its running variance: buffers, parameters, or
    attributes."""
    for name in STATISTICS:
        for table in (module._buffers, module._parameters, vars(module)):
            for value in [table[name]] if name in table else []:  # TorchScript's have no get
                if isinstance(value, Tensor):
                    yield table, name, value


def has_statistics(module: nn.Module) -> bool:
    """Whether it has a running mean and a running variance."""
    return [name for _, name, _ in tables(module)] == list(STATISTICS)


def means(module: nn.Module) -> Tensor:
    """Its running mean; raises StopIteration without."""
    return next(tensor for _, _, tensor in tables(module))
