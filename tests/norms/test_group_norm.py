"""What GroupNorm and LayerNorm refuse, and where they coincide with other layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnbench.norms.group import GroupNorm, LayerNorm


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^10 channels do not split into 4 groups$"):
        GroupNorm(10, groups=4)
    with pytest.raises(ValueError, match=r"^2 channels do not split into 4 groups$"):
        GroupNorm(2, groups=4)


def test_layer_norm_is_torchs_over_the_whole_image_with_one_scale_per_channel() -> None:
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)) + 100
    layer = LayerNorm(4)
    with torch.no_grad():
        layer.get_parameter("weight").copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        layer.get_parameter("bias").copy_(torch.tensor([0.0, -1.0, 1.0, 5.0]))
    expected = nn.functional.layer_norm(x.double(), (4, 2, 2), eps=1e-5).float()
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    expected = expected * weight.view(1, 4, 1, 1) + bias.view(1, 4, 1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    assert weight.shape == (4,)


def test_neither_keeps_anything_between_calls() -> None:
    for layer in (GroupNorm(4, groups=2), LayerNorm(4)):
        assert not list(layer.buffers())
        x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
        first = layer(x)
        layer(x + 50)
        assert torch.equal(layer(x), first)
        assert torch.equal(layer.eval()(x), first)


@pytest.mark.parametrize("shape", [(8, 8, 7, 7), (8, 8, 1, 1), (8, 8)])
@pytest.mark.parametrize("shift", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last_is_as_precise_as_contiguous(
    groups: int, shift: float, shape: tuple[int, ...]
) -> None:
    """torch's own kernel for channels-last is off by 1 at a shift of 1000, E[x²] − μ² by 0.3."""
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() + shift
    x = exact.float()
    reference = nn.functional.group_norm(x.double(), groups)
    theirs = (nn.GroupNorm(groups, 8)(x) - reference).abs().max().item()
    sets = x.reshape(8, groups, -1)
    mean = sets.mean(2, keepdim=True)
    naive = (sets - mean) / (sets.square().mean(2, keepdim=True) - mean**2 + 1e-5).sqrt()
    assert not shift or (naive.view(shape) - reference).abs().max() > 8 * theirs
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    ours = (GroupNorm(8, groups=groups)(x) - reference).abs().max().item()
    assert 0 < ours <= 8 * theirs  # on any processor
