"""Usable steps against a plain loop over the grid, and losses made up for the purpose."""

from __future__ import annotations

from math import inf, isfinite

import pytest
import torch
from torch import Tensor, nn

from bnbench.norms.batch import BatchNorm
from bnbench.probes import step_stability
from tests.probes.examples import (
    AS_IN_TRAINING,
    STEP,
    Norm,
    batch,
    by_name,
    gradient_at,
    loss_at,
    network,
    weights_of,
)

GRID = tuple(10.0**k for k in range(-3, 4))


def twin(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    w, g = weights_of(model), gradient_at(model, weights_of(model), data)
    start = loss_at(model, w, data)
    ratios = [loss_at(model, {n: w[n] - s * g[n] for n in w}, data) / start for s in GRID]
    stable = 0.0
    for step, ratio in zip(GRID, ratios, strict=True):
        if not ratio <= 1:
            break
        stable = step
    exploding = [s for s, r in zip(GRID, ratios, strict=True) if not isfinite(r) or r > 1000]
    return stable, min(exploding, default=inf)


@pytest.mark.parametrize("make_norm", [BatchNorm, lambda _: nn.Identity()])
def test_against_the_twin(make_norm: Norm) -> None:
    model = network(make_norm)
    batches = [batch(seed=seed) for seed in (3, 4, 5)]
    facts = step_stability.read(model, AS_IN_TRAINING, batches=batches, steps=GRID[::-1], step=STEP)
    limits = [twin(model, data) for data in batches]
    assert by_name(facts) == {
        ("network", "largest_stable"): sorted(limit[0] for limit in limits)[1],
        ("network", "smallest_exploding"): sorted(limit[1] for limit in limits)[1],
    }
    assert GRID[0] <= sorted(limit[0] for limit in limits)[1] < GRID[-1]


class Planned(nn.Module):
    """One weight w = 0, whose gradient is −1/2; at w = η/2 the loss is what `plan` says."""

    def __init__(self, plan: dict[float, float]) -> None:
        super().__init__()
        self.plan = plan
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        # Two classes, logits (z, 0) of class 0: the loss is ln(1 + e^−z), and ln 2 at z = 0.
        w = float(self.weight.detach())
        if w == 0:
            z = self.weight.expand(len(x))
        else:
            (loss,) = (each for step, each in self.plan.items() if abs(step / 2 - w) < 1e-9)
            z = torch.full((len(x),), loss, dtype=torch.float64).mul(-1)  # large: the loss itself
            if loss < 100:
                z = -torch.full((len(x),), loss, dtype=torch.float64).expm1().log()
        return torch.stack([z, torch.zeros_like(z)], 1)


LN2 = 0.6931471805599453
PLANS = {
    # loss at η = 1, 2, 3, 4: (largest stable, smallest exploding)
    (0.5, 0.4, 0.3, 0.2): (4.0, inf),
    (0.5, 0.4, 0.9, 0.2): (2.0, inf),  # stable again at 4 does not count
    (0.9, 0.4, 0.3, 0.2): (0.0, inf),
    (0.5, 0.9, 700.0, 0.2): (1.0, 3.0),
    (0.5, 0.9, inf, 0.2): (1.0, 3.0),
    (0.5, 0.9, 690.0, 800.0): (1.0, 4.0),  # the limit is a thousand times ln 2
    (LN2 * (1 + 1e-9), 0.9, 0.9, 0.9): (1.0, inf),  # rounding is no rise
}


@pytest.mark.parametrize(("losses", "limits"), PLANS.items())
def test_by_hand(losses: tuple[float, ...], limits: tuple[float, float]) -> None:
    steps = (1.0, 2.0, 3.0, 4.0)
    model = Planned(dict(zip(steps, losses, strict=True)))
    data = torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    from bnbench.probes.stand_in import AsInTraining

    facts = step_stability.read(
        model, AsInTraining(normalization=()), batches=[data], steps=steps, step=STEP
    )
    found = by_name(facts)
    assert found["network", "largest_stable"] == limits[0]
    assert found["network", "smallest_exploding"] == limits[1]
