"""Batch noise against its definition in loops; who stands in whose company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnbench.probes import batch_noise
from tests.probes.examples import by_name, how, network, pictures, trainer


def sets_of(
    count: int, fixed: int, others: int, norm_batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [batch_noise.draw_batches(fixed, others, norm_batch_size, random) for _ in range(count)]


def twin(model: nn.Module, sets: list[tuple[Tensor, Tensor]], size: int) -> dict[str, float]:
    """Each fixed image in its batch, one batch after the other, in torch's training mode."""
    shown = pictures(60)
    logits = np.zeros((len(sets), len(sets[0][1]), 3))
    for r, (positions, places) in enumerate(sets):
        for image, place in enumerate(places.tolist()):
            start = place // size * size
            company = positions[start : start + size]
            assert int(company[place - start]) == image
            logits[r, image] = trainer(model)(shown.x[company])[place - start].detach().numpy()
    within = np.mean([np.trace(np.cov(logits[:, i].T)) for i in range(logits.shape[1])])
    means = logits.mean(0)
    flips = [z.argmax() != means[i].argmax() for i in range(logits.shape[1]) for z in logits[:, i]]
    return {"noise": float(within / np.trace(np.cov(means.T))), "flip_rate": float(np.mean(flips))}


@pytest.mark.parametrize("norm_batch_size", [2, 4, 8, 12])
def test_against_the_twin(norm_batch_size: int) -> None:
    model, sets = network(), sets_of(5, 10, 50, norm_batch_size)
    found = batch_noise.read(model, how(norm_batch_size), draws=sets, sample_of=pictures(60).at)
    expected = twin(model, sets, norm_batch_size)
    named = {("network", name): value for name, value in expected.items()}
    assert by_name(found) == pytest.approx(named, rel=1e-9)
    assert expected["noise"] > 0


def test_it_falls_with_the_size_of_the_batch() -> None:
    noises = [
        by_name(
            batch_noise.read(
                network(), how(size, 40), draws=sets_of(12, 10, 50, size), sample_of=pictures(60).at
            )
        )["network", "noise"]
        for size in (4, 8, 16, 40)
    ]
    assert noises == sorted(noises, reverse=True)
    assert noises[0] > 4 * noises[-1]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16, 50])
def test_company(size: int) -> None:
    """Full batches, each image at most once in one; every fixed image once a set."""
    first, second = sets_of(2, 10, 50, size)
    for positions, places in (first, second):
        assert len(positions) % size == 0
        for company in positions.split(size):  # type: ignore[no-untyped-call]
            assert len(set(company.tolist())) == size
            assert (company < 10).sum() <= max(size // 4, 1)
        assert positions[places].tolist() == list(range(10))
        assert (positions < 10).sum() == 10
    assert not torch.equal(first[0], second[0])


def test_too_few_others() -> None:
    with pytest.raises(ValueError, match="6 other images of 5"):
        batch_noise.draw_batches(4, 5, 8, torch.Generator())


@pytest.mark.parametrize(
    "make_norm",
    [lambda c: GroupNorm(c, groups=2), LayerNorm, InstanceNorm, lambda _: nn.Identity()],
)
def test_without_batch_statistics_it_is_exactly_zero(make_norm: type[nn.Module]) -> None:
    found = batch_noise.read(network(make_norm), how(), draws=[], sample_of=pictures(9).at)
    assert by_name(found) == {("network", "noise"): 0.0, ("network", "flip_rate"): 0.0}
