"""Which layers may be exchanged for another normalization: those that do what BatchNorm does."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase

TORCHS_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
QUANTIZATION = "torch.ao."
"""Where layers are that train for quantization: they compute with the statistics of a BatchNorm
inside of them."""


def trouble(old: nn.Module, parent: nn.Module) -> str | None:
    """Why a layer, a child of `parent`, cannot be exchanged."""
    if isinstance(old, torch.jit.ScriptModule):
        return "it is scripted: exchange before torch.jit.script or trace"
    if isinstance(old, _LazyNormBase):
        return f"{type(old).__name__} does not know its channels: pass a batch through it first"
    if not isinstance(old, _BatchNorm):
        return f"{type(old).__name__} keeps running statistics and is none of torch's BatchNorms"
    plain = type(parent).forward is nn.Sequential.forward
    if type(parent).__module__.startswith(QUANTIZATION) and not plain:
        name = type(parent).__name__
        return f"{name} computes with its statistics: exchange before preparing to quantize"
    if old._forward_hooks or old._forward_pre_hooks or old._backward_hooks:
        return "it has hooks, which another layer would lose: remove them first"
    own = type(old).forward in TORCHS_FORWARDS and "forward" not in vars(old)
    on_meta = any(each.is_meta for each in (*old.parameters(), *old.buffers()))
    if (own and not old._modules) or on_meta or _only_normalizes(old):
        return None
    return (
        f"{type(old).__name__} does more in eval mode than to normalize and then to apply the "
        "modules inside of it"
    )


@torch.no_grad()
def _only_normalizes(old: _BatchNorm) -> bool:
    """Whether a subclass is BatchNorm and then its children, in their order: on random inputs."""
    twin: Any = deepcopy(old).float().eval()
    sizes = {nn.BatchNorm1d: (8,), nn.BatchNorm3d: (2, 2, 2)}
    size = next((size for kind, size in sizes.items() if isinstance(old, kind)), (4, 4))
    x = torch.randn(4, old.num_features, *size, generator=torch.Generator().manual_seed(0))
    x = 3 * x.to(next((each.device for each in twin.state_dict().values()), x.device))
    batch = twin.running_mean is None
    expected = F.batch_norm(
        x, twin.running_mean, twin.running_var, twin.weight, twin.bias, batch, 0.0, twin.eps
    )
    try:
        for part in twin.children():
            expected = part(expected)
        return torch.allclose(twin(x), expected, rtol=1e-3, atol=1e-3)
    except Exception:  # whatever code of someone else's raises, it is no such layer
        return False
