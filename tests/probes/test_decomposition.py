"""The three parts against torch's training mode and NumPy's cross entropy."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bnbench.norms.group import LayerNorm
from bnbench.probes import decomposition
from tests.probes.examples import (
    Pictures,
    by_name,
    cross_entropy,
    how,
    network,
    pictures,
    trainer,
)

TRAIN, VALIDATION = pictures(24, 1), pictures(16, 2)


def errors(model: nn.Module, shown: Pictures, size: int | None) -> dict[str, float]:
    """Loss and share of wrong predictions, in training mode by chunks, or in eval mode (None)."""
    if size is None:
        logits = copy.deepcopy(model).eval()(shown.x)
    else:
        chunks = shown.x.split(size)  # type: ignore[no-untyped-call]
        logits = torch.cat([trainer(model)(chunk) for chunk in chunks])
    wrong = sum(int(z.argmax()) != int(y) for z, y in zip(logits, shown.y, strict=True))
    return {"loss": cross_entropy(logits, shown.y), "error": wrong / len(shown.y)}


def test_against_the_twin() -> None:
    model = network()
    found = by_name(
        decomposition.read(
            model,
            how(4),
            norm_batch_sizes=(2, 8, 999),
            train=TRAIN.sample(),
            validation=VALIDATION.sample("val"),
        )
    )
    train = {size: errors(model, TRAIN, size) for size in (2, 4, 8, 24)}
    batch, running = errors(model, VALIDATION, 4), errors(model, VALIDATION, None)
    expected: dict[str, float] = {}
    for kind in ("loss", "error"):
        expected |= {f"{kind}_train_nbs{size}": each[kind] for size, each in train.items()}
        expected[f"{kind}_val_batch"] = batch[kind]
        expected[f"{kind}_val_running"] = running[kind]
        expected[f"{kind}_training_noise"] = train[4][kind] - train[24][kind]
        expected[f"{kind}_generalization"] = batch[kind] - train[4][kind]
        expected[f"{kind}_inconsistency"] = running[kind] - batch[kind]
    assert found == pytest.approx({("network", k): v for k, v in expected.items()}, rel=1e-9)
    assert abs(found["network", "loss_training_noise"]) > 1e-4


def test_the_parts_add_up_to_what_separates_training_from_inference() -> None:
    """noise at the largest NBS → training → other images → inference: a telescope."""
    found = by_name(
        decomposition.read(
            network(),
            how(4),
            norm_batch_sizes=(),
            train=TRAIN.sample(),
            validation=VALIDATION.sample("val"),
        )
    )
    for kind in ("loss", "error"):
        parts = ("training_noise", "generalization", "inconsistency")
        whole = found["network", f"{kind}_val_running"] - found["network", f"{kind}_train_nbs24"]
        assert sum(found["network", f"{kind}_{p}"] for p in parts) == pytest.approx(whole)


def test_without_batch_statistics_noise_and_inconsistency_are_exactly_zero() -> None:
    found = by_name(
        decomposition.read(
            network(LayerNorm),
            how(4),
            norm_batch_sizes=(2,),
            train=TRAIN.sample(),
            validation=VALIDATION.sample("val"),
        )
    )
    for kind in ("loss", "error"):
        assert found["network", f"{kind}_training_noise"] == 0.0
        assert found["network", f"{kind}_inconsistency"] == 0.0
        assert found["network", f"{kind}_train_nbs2"] == found["network", f"{kind}_train_nbs24"]
    assert found["network", "loss_generalization"] != 0.0
