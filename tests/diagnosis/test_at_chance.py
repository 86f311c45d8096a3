"""Networks that know nothing of their labels, whatever these are: it is said, and never that
nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnbench
from tests.diagnosis.test_models import clusters
from tests.diagnosis.test_tasks import body, fitted, rows

X, CLASS = clusters()
SEVERAL = torch.stack([CLASS == 0, CLASS >= 2, CLASS == 3], 1).float()
NUMBER = X @ torch.linspace(-1, 1, 6)[:, None] * 0.1 + 7
PLACES = CLASS[:, None].repeat(1, 3)
PLACES[range(512), [k % 3 for k in range(512)]] = -100
FAR = X @ torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
RARE = FAR.gt(FAR.quantile(0.99, 0)).float().view(-1, 1, 4, 5)
"""Of little loss, little can be saved."""


@dataclass(frozen=True)
class Kind:
    """`constant`: the best answer that is always the same, (outputs,), by hand; `shape`: of an
    example's output; `loss`: by torch, of outputs and labels."""

    labels: Tensor
    constant: Tensor
    shape: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor]


def logit(share: Tensor) -> Tensor:
    return (share / (1 - share)).log()


SHARES = torch.stack([CLASS.eq(k).double().mean() for k in range(4)]).float()
OF_PLACES = torch.stack([PLACES.eq(k).sum() / (PLACES >= 0).sum() for k in range(4)])
KINDS = {
    "classes": Kind(CLASS, SHARES.log(), (4,), F.cross_entropy),
    "dense": Kind(PLACES, OF_PLACES.log()[:, None].repeat(1, 3).flatten(), (4, 3), F.cross_entropy),
    "several": Kind(SEVERAL, logit(SEVERAL.mean(0)), (3,), F.binary_cross_entropy_with_logits),
    "rare": Kind(
        RARE, logit(RARE.mean()).expand(20), (1, 4, 5), F.binary_cross_entropy_with_logits
    ),
    "shares": Kind(F.one_hot(CLASS).float() * 0.8 + 0.05, SHARES.log(), (4,), F.cross_entropy),
    "number": Kind(NUMBER, NUMBER.mean(0), (1,), lambda out, y: F.mse_loss(out, y) / NUMBER.var()),
}


def network(kind: Kind) -> nn.Sequential:
    model = nn.Sequential(*cast(nn.Sequential, body(len(kind.constant))))
    cast(nn.BatchNorm1d, model[1]).momentum = 0.1
    model.get_parameter("3.bias").data.copy_(kind.constant)
    return model.append(nn.Unflatten(1, kind.shape))


@pytest.mark.parametrize("name", KINDS)
def test_what_knows_nothing_is_at_chance(name: str) -> None:
    """Its statistics are far off, which does no harm, as its outputs hardly depend on them."""
    kind = KINDS[name]
    model, labels = network(kind), kind.labels
    with torch.no_grad():
        model.train()(X)
        model.get_parameter("3.weight").mul_(1e-4)
        model.get_buffer("1.running_var").mul_(30)
        constant = kind.loss(model(X), labels).item()
    found = bnbench.diagnose(model, rows(X, labels))
    (finding,) = found.findings
    assert (finding.name, finding.harmful) == ("at-chance", False)
    assert finding.evidence.count(f"loss {constant:.3f}") == 2, finding.evidence
    assert not found.healthy


@pytest.mark.parametrize("name", KINDS)
def test_what_knows_a_little_is_not(name: str) -> None:
    kind = KINDS[name]
    model = network(kind)
    fitted(model, lambda: kind.loss(model(X), kind.labels))
    assert bnbench.diagnose(model, rows(X, kind.labels)).healthy


def test_where_all_labels_are_the_same_there_is_nothing_to_know() -> None:
    model = network(KINDS["classes"]).train()
    fitted(model, lambda: F.cross_entropy(model(X), torch.ones_like(CLASS)))
    assert bnbench.diagnose(model, rows(X, torch.ones_like(CLASS))).healthy
