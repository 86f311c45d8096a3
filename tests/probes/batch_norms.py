"""A network whose BatchNorm layers have something to say, and images for it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm


def network(make_norm: Callable[[int], nn.Module] = BatchNorm) -> nn.Sequential:
    """Two norms before and one after the spatial mean, dropout, nothing at its initial value."""
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=True),
        make_norm(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        make_norm(6),
        nn.Sigmoid(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        make_norm(5) if make_norm is BatchNorm else nn.Identity(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=random))
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=random) + 0.5)
    return model.to(memory_format=torch.channels_last)


def images(n: int, *, shift: float = 0.0, seed: int = 1) -> Tensor:
    x = torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed)) + shift
    return x.contiguous(memory_format=torch.channels_last)


def training_without_dropout(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model).train()
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return twin
