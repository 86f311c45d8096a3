"""Networks that people use, trained a little at 64 × 64: healthy ones have no finding, and a fault
planted in them gets its name. One of each kind of block: `scripts/known_networks` does it with all
of them and every fault."""

from __future__ import annotations

import pytest

import bnbench
from tests.diagnosis import known

NAMES = {
    "RegNetX, narrow": ("stale", "mismatched", "reused-layer"),
    "ShuffleNetV2 × 0.5": ("stale",),
    "GhostNet × 0.5 (timm)": ("reused-layer",),
    "EfficientNet-B0 × 0.5, stochastic depth": ("mismatched",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_one_is_healthy_and_a_fault_gets_its_name(name: str) -> None:
    model = known.trained(known.NETWORKS[name])
    assert known.diagnosed(model).findings == ()
    for fault in NAMES[name]:
        (finding,) = bnbench.diagnose(known.FAULTS[fault](model), known.unseen(5)).findings
        assert (finding.name, finding.harmful) == (fault, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ConvNeXt, narrow, stochastic depth", "ViT, narrow"])
def test_one_without_batch_norm_is_healthy(name: str) -> None:
    found = known.diagnosed(known.trained(known.WITHOUT[name]))
    assert found.findings == ()
    assert found.layers == ()
