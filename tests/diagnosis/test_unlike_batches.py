"""Loaders whose batches are of several kinds, or of several shapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnbench
from bnbench.diagnosis.batches import collect
from bnbench.guard import ForeignCode
from tests.diagnosis.test_tasks import CLASS, Arguments, X, trained


def test_alternating_batches_are_all_seen() -> None:
    """Every other batch is of another kind, and every other one would be enough."""
    batches = [(X[:32] + 100 * (k % 2), CLASS[:32]) for k in range(64)]
    found = bnbench.diagnose(trained(Arguments()).body, batches, images=1024)
    kinds = {each.name for each in found.findings}
    assert found.images["train"] == 1024
    assert "mixed-domains" in kinds or found.reading("running").loss > 1


class ByDomain(nn.Module):
    """The domain of a batch, a number or one for each example, says which layer normalizes it, as
    in Chang et al. 2019, "Domain-specific batch normalization"."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 4)
        self.norms = nn.ModuleList([nn.BatchNorm1d(16), nn.BatchNorm1d(16)])

    def forward(self, x: Tensor, domain: int | Tensor) -> Tensor:
        which = domain if isinstance(domain, int) else int(domain[0])
        return self.last(self.norms[which](self.first(x)).relu())  # type: ignore[no-any-return]


def test_batches_of_two_kinds_that_a_number_tells_apart_are_not_mixed() -> None:
    batches = [
        (X[32 * k : 32 * k + 32] * 9 ** (k % 2), k % 2, CLASS[32 * k : 32 * k + 32], k)
        for k in range(16)
    ]
    found = bnbench.diagnose(ByDomain(), batches, images=512)
    assert [each.used for each in found.layers] == [True, True]
    twin = ByDomain().train()
    with torch.no_grad():
        losses = [F.cross_entropy(twin(x, domain), y).item() for x, domain, y, _ in batches]
    assert found.reading("batch").loss == pytest.approx(sum(losses) / 16, abs=1e-5)
    kept = collect(batches, "train", 512, torch.device("cpu"), ForeignCode())
    assert [len(columns[0,]) for _, columns, _ in kept.groups] == [256, 256]
    assert len(collect(batches[:3], "train", 96, torch.device("cpu"), ForeignCode()).groups) == 2


def test_batches_that_a_column_tells_apart_are_not_mixed() -> None:
    batches = [
        (X[k : k + 32] * 9 ** (k // 32 % 2), torch.full((32,), k // 32 % 2), CLASS[k : k + 32])
        for k in range(0, 512, 32)
    ]
    found = bnbench.diagnose(ByDomain(), batches, images=512)
    assert [each.used for each in found.layers] == [True, True]
    twin = ByDomain().train()
    with torch.no_grad():
        parts = [twin.first(x) for x, domain, _ in batches if not domain[0]]
        losses = [F.cross_entropy(twin(x, domain), y).item() for x, domain, y in batches]
    assert found.reading("batch").loss == pytest.approx(sum(losses) / 16, abs=1e-5)
    mean = torch.cat(parts).double().mean(0)
    assert torch.allclose(found.population["norms.0"].mean, mean, atol=1e-5)


class Boxes(nn.Module):
    """Its examples have boxes, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        return self.body(x) + 0 * boxes.sum()  # type: ignore[no-any-return]


def test_a_column_without_values_tells_no_batches_apart() -> None:
    batches = [(X[k : k + 32], torch.zeros(32, k // 32 % 2, dtype=torch.long), CLASS[k : k + 32])
               for k in range(0, 512, 32)]  # fmt: skip
    assert bnbench.diagnose(Boxes(), batches).images == {"train": 512}


def test_examples_of_different_shapes_never_share_a_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(6, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), Pool(), nn.Linear(8, 4))
    lengths = [3, 5, 3, 7] * 4
    noise = torch.Generator().manual_seed(0)
    batches = [
        (
            X[32 * k : 32 * k + 32, :, None] + torch.randn(32, 6, n, generator=noise),
            CLASS[32 * k : 32 * k + 32],
        )
        for k, n in enumerate(lengths)
    ]
    found = bnbench.diagnose(model, batches)
    assert found.images == {"train": 512}
    with torch.no_grad():
        losses = torch.cat(
            [F.cross_entropy(model.eval()(x), y, reduction="none") for x, y in batches]
        )
    assert found.reading("running").loss == pytest.approx(losses.mean().item(), abs=1e-5)


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)
