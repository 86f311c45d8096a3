"""Names of setups and of runs' folders: by what a run is, alike in every grid, short."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bnbench.config import identity
from bnbench.wording import slug


@pytest.mark.parametrize(
    ("norm", "label"),
    [
        ("none", "none"),
        ("scaled-ws", "scaled-ws"),
        ("frn", "frn"),
        ("evonorm-s0", "evonorm-s0"),
        ("batch-renorm", "batch-renorm-before"),
        ("group-ws", "group-ws-before"),
    ],
)
def test_labels_name_the_placement_where_there_are_two(plan: Any, norm: str, label: str) -> None:
    assert plan(f"norm: {{kind: {norm}}}").only().setup == label


def test_golden_id(plan: Any) -> None:
    """A change here renames every folder that users have: raise IDENTITY_VERSION knowingly."""
    assert identity.run_id(plan("").only()) == "batch-before_s00_51eddb73"


def test_ids_do_not_depend_on_the_grid(plan: Any) -> None:
    few = plan("{setups: {BN before: }, axes: {data.batch_size: [64], optim.lr: [1e-5]}}").runs
    more = plan(
        "{setups: {BN before: }, axes: {data.batch_size: [1024, 64], optim.lr: [10, 1e-5]}}"
    ).runs
    assert identity.run_id(few[0]) in {identity.run_id(run) for run in more}
    assert identity.run_id(few[0]).startswith("bn-before_bs064_lr1e-05_s00_")
    assert identity.point(few[0]) == {"data.batch_size": 64, "optim.lr": 1e-5}


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("data.batch_size", 2, "bs002"),
        ("data.batch_size", 1024, "bs1024"),
        ("norm.batch_size", 8, "nbs008"),
        ("norm.momentum", 0.01, "mom0.01"),
        ("optim.lr", 3.0, "lr3"),
        ("optim.lr", 1e20, "lr1e20"),
        ("train.steps", 100, "steps100"),
        ("norm.placement", "after", "placement-after"),
        ("norm.affine", False, "affine-false"),
        ("model.widths", (8, 16), "widths-8-16"),
        ("optim.weight_decay", 0.5, "weightdecay0.5"),
    ],
)
def test_parts_of_ids(key: str, value: Any, part: str) -> None:
    assert identity.folder_part(key, value) == part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BN before", "bn-before"),
        ("../../etc", "etc"),
        ("..", ""),
        ("γ", ""),
        ("Größe", "groe"),
        ("a" * 99, "a" * 64),
        ("con\x00trol", "con-trol"),
        ("-x.", "x"),
    ],
)
def test_slugs(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_long_ids_are_cut_and_stay_apart(plan: Any) -> None:
    text = json.dumps({"setups": {"s" * 80: {}}, "axes": {"optim.weight_decay": [0.1, 0.2]}})
    ids = [identity.run_id(run) for run in plan(text, over=("model.activation=leaky-relu",)).runs]
    assert len(set(ids)) == 2
    assert all(len(each) == 64 for each in ids)
