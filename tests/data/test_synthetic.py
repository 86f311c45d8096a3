"""Generated images repeat, are balanced, can be learned; moments are exact."""

import numpy as np
import pytest
import torch

from bnbench.data import dataset as memory_module
from bnbench.data.dataset import Dataset, moments
from bnbench.data.synthetic import generate_synthetic
from bnbench.errors import DataError


def generate(seed: int = 0, noise: float = 0.5, channels: int = 1) -> Dataset:
    return generate_synthetic(
        train_images=1200,
        test_images=300,
        classes=10,
        channels=channels,
        image_size=12,
        noise=noise,
        data_seed=seed,
    )


def test_the_seed_decides_everything() -> None:
    first, again, other = generate(3), generate(3), generate(4)
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert torch.equal(first.test.pixels, again.test.pixels)
    assert not torch.equal(first.train.pixels, other.train.pixels)
    assert first.train.labels.bincount().tolist() == [120] * 10
    assert first.train.pixels.dtype == torch.uint8


def test_a_linear_classifier_learns_it() -> None:
    data = generate(noise=1.0, channels=3)
    X, Y = (part.pixels.flatten(1).double() / 255 - 0.5 for part in (data.train, data.test))
    targets = torch.nn.functional.one_hot(data.train.labels, 10).double()
    weights = torch.linalg.solve(X.T @ X + torch.eye(X.shape[1]), X.T @ targets)
    accuracy = ((Y @ weights).argmax(1) == data.test.labels).double().mean()
    assert accuracy > 0.9  # chance is 0.1


def test_noise_has_the_asked_share_and_nothing_clips_much() -> None:
    data = generate(noise=2.0)
    x = data.train.pixels.double()
    within = torch.stack([x[data.train.labels == c].var(0).mean() for c in range(10)]).mean()
    share = within / x.var()
    assert abs(share - 4 / 5) < 0.02  # noise² / (1 + noise²)
    assert ((x == 0) | (x == 255)).double().mean() < 0.01


def test_moments_are_those_of_float64() -> None:
    pixels = torch.randint(0, 256, (5000, 3, 5, 4), dtype=torch.uint8)
    pixels[:, 1] = 200
    mean, std = moments(pixels)
    x = pixels.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(x.mean((0, 2, 3)), rel=1e-12)
    assert std[0] == pytest.approx(x[:, 0].std(), rel=1e-9)
    assert std[1] == 0.0


def test_too_large_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "available_memory", lambda: 100_000)
    with pytest.raises(DataError, match=r"^1,500 images of 1×12×12 need 216\.0 kB; 100\.0 kB"):
        generate()
