"""Shifted images against SciPy and NumPy."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from bnbench.data.shifts import GRADES, SHIFTS, Kind, shifted


def pixels() -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, 2, 9, 11), generator=random, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", GRADES["blur"])
def test_blur_is_scipy_s_gaussian(size: float) -> None:
    expected = [
        [ndimage.gaussian_filter(c.astype(float), size, mode="nearest", radius=-int(-3 * size // 1))
         for c in image]
        for image in pixels().numpy()
    ]  # fmt: skip
    found = shifted(pixels(), "blur", size, generator()).numpy()
    assert np.abs(found - np.array(expected)).max() <= 0.501


@pytest.mark.parametrize("size", GRADES["contrast"])
def test_contrast_keeps_the_mean_of_each_channel(size: float) -> None:
    x = pixels().numpy().astype(float)
    mean = x.mean((2, 3), keepdims=True)
    found = shifted(pixels(), "contrast", size, generator()).numpy()
    assert np.abs(found - (mean + size * (x - mean))).max() <= 0.501


@pytest.mark.parametrize("size", GRADES["brightness"])
def test_brightness_is_added_and_clipped(size: float) -> None:
    found = shifted(pixels(), "brightness", size, generator()).numpy()
    assert np.abs(found - np.minimum(pixels().numpy() + 255 * size, 255)).max() <= 0.501
    assert (found == 255).any()


def test_noise_is_normal_and_the_seed_s() -> None:
    gray = torch.full((50, 1, 28, 28), 128, dtype=torch.uint8)
    found = shifted(gray, "noise", 0.1, generator())
    assert found.double().std().item() == pytest.approx(25.5, rel=0.02)
    assert torch.equal(found, shifted(gray, "noise", 0.1, generator()))
    assert not torch.equal(found, shifted(gray, "noise", 0.1, generator(1)))


def test_every_grade_has_a_name_and_is_farther_than_the_one_before() -> None:
    smooth = torch.from_numpy(ndimage.gaussian_filter(pixels().numpy(), (0, 0, 1, 1))).contiguous()
    for kind in get_args(Kind):
        moved = [shifted(smooth, kind, SHIFTS[f"{kind}.{g}"][1], generator()) for g in (1, 2, 3)]
        far = [(each.double() - smooth.double()).abs().mean().item() for each in moved]
        assert far == sorted(far)
        assert far[0] > 0
    assert len(SHIFTS) == 12
