"""What decides the numbers: every key of the schema is on one side, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from bnbench.config import RunConfig, cell_label, identity, point, run_id, slug
from bnbench.config.keys import BLOCKS
from bnbench.config.labels import folder_part

# Written apart from the code, so that a new key fails here until somebody has decided.
NOT_IDENTITY = {
    "data.root",
    "data.download",
    "train.evaluations",
    "train.evaluation_images",
    "train.log_every",
    "train.checkpoint_every",
    "compute.device",
    "compute.threads",
}
SYNTHETIC = "data: {dataset: synthetic, validation_size: 500}\n"
PLAIN = ""
MLP = "model: {kind: mlp, widths: [8]}\n"
GROUP = "norm: {kind: group}\n"
LAYER = "norm: {kind: layer}\n"
ADAMW = "optim: {kind: adamw}\n"
# base, key, another value: one row for every key of every block
CHANGES = [
    (PLAIN, "data.dataset", "mnist"),
    (PLAIN, "data.root", "elsewhere"),
    (PLAIN, "data.download", "false"),
    (PLAIN, "data.train_size", "500"),
    (PLAIN, "data.validation_size", "500"),
    (PLAIN, "data.batch_size", "32"),
    (PLAIN, "data.eval_batch_size", "32"),
    (PLAIN, "data.drop_last", "false"),
    (PLAIN, "data.order", "class-sorted"),
    (PLAIN, "data.augment", "flip-crop"),
    (SYNTHETIC, "data.train_images", "2001"),
    (SYNTHETIC, "data.test_images", "501"),
    (SYNTHETIC, "data.classes", "9"),
    (SYNTHETIC, "data.channels", "3"),
    (SYNTHETIC, "data.image_size", "29"),
    (SYNTHETIC, "data.noise", "0.6"),
    (SYNTHETIC, "data.data_seed", "1"),
    (PLAIN, "model.kind", "mlp"),
    (PLAIN, "model.widths", "[8]"),
    (PLAIN, "model.blocks", "1"),
    (PLAIN, "model.activation", "gelu"),
    (PLAIN, "model.init", "xavier"),
    (PLAIN, "model.dropout", "0.1"),
    (MLP, "model.widths", "[16]"),
    (PLAIN, "norm.kind", "none"),
    (PLAIN, "norm.placement", "after"),
    (PLAIN, "norm.eps", "1e-4"),
    (PLAIN, "norm.affine", "false"),
    (PLAIN, "norm.batch_size", "32"),
    (PLAIN, "norm.momentum", "null"),
    (GROUP, "norm.groups", "2"),
    (LAYER, "norm.eps", "1e-4"),
    (PLAIN, "optim.kind", "adamw"),
    (PLAIN, "optim.lr", "0.2"),
    (PLAIN, "optim.momentum", "0.8"),
    (PLAIN, "optim.weight_decay", "0.1"),
    ("optim: {weight_decay: 0.1}", "optim.decay_norm_and_bias", "true"),
    (PLAIN, "optim.lr_rule", "sqrt"),
    ("optim: {lr_rule: linear}", "optim.base_batch_size", "32"),
    (PLAIN, "optim.schedule", "constant"),
    (PLAIN, "optim.warmup", "0.1"),
    ("optim: {schedule: step}", "optim.milestones", "[0.5]"),
    ("optim: {schedule: step}", "optim.decay", "0.5"),
    (ADAMW, "optim.betas", "[0.9, 0.99]"),
    (ADAMW, "optim.eps", "1e-7"),
    (PLAIN, "train.epochs", "2"),
    (PLAIN, "train.steps", "50"),
    (PLAIN, "train.examples", "5000"),
    (PLAIN, "train.evaluations", "3"),
    (PLAIN, "train.evaluation_images", "77"),
    (PLAIN, "train.log_every", "3"),
    (PLAIN, "train.checkpoint_every", "5"),
    (PLAIN, "train.diverged_above", "20"),
    (PLAIN, "compute.device", "cpu"),
    (PLAIN, "compute.threads", "2"),
    (PLAIN, "compute.precision", "bf16"),
]


@pytest.mark.parametrize(("base", "key", "value"), CHANGES)
def test_each_key_is_on_its_side(plan: Any, base: str, key: str, value: str) -> None:
    before, after = plan(base).only(), plan(base, f"{key}={value}").only()
    assert before != after
    assert (identity(before) == identity(after)) == (key in NOT_IDENTITY)


def test_every_key_is_classified() -> None:
    tried = {key for _, key, _ in CHANGES}
    keys = {f"{block.name}.{key}" for block in BLOCKS.values() for key in block.all_keys}
    # Probes leave no trace in the numbers, whatever their keys.
    assert {key for key in keys if not key.startswith("probes.")} == tried
    assert set(RunConfig.model_fields) == {"experiment", "setup", "swept", "seed", *BLOCKS}
    for block in BLOCKS.values():
        for model in block.models.values():
            for key, field in model.model_fields.items():
                inner = field.annotation
                nested = isinstance(inner, type) and issubclass(inner, BaseModel)
                assert not nested or block.name == "probes", f"classify the keys inside {key}"


def test_labels_are_not_identity_and_the_seed_is(plan: Any) -> None:
    base = plan("").only()
    for change in ({"experiment": "b"}, {"setup": "b"}, {"swept": ("optim.lr",)}):
        assert identity(base.model_copy(update=change)) == identity(base)
    assert identity(base.model_copy(update={"seed": 1})) != identity(base)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{optim: {lr: 1e-3, momentum: 0}}", "optim:\n  momentum: 0.0  # none\n  lr: 0.001\n"),
        ("train: {diverged_above: 10}", "train: {diverged_above: 10.0}"),
        ("optim: {weight_decay: -0.0}", "optim: {weight_decay: 0}"),
        ("norm: {batch_size: null}", ""),
        ("train: {epochs: 3}", ""),
        # what cannot matter
        ("optim: {milestones: [0.1], decay: 0.5}", ""),
        ("optim: {base_batch_size: 8}", ""),
        ("optim: {decay_norm_and_bias: true}", ""),
    ],
)
def test_spelling_is_not_identity(plan: Any, one: str, other: str) -> None:
    assert identity(plan(one).only()) == identity(plan(other).only())


def test_image_folders_count_by_content(plan: Any, tmp_path: Any) -> None:
    for name in ("a", "b", "c"):
        for part in ("train", "test"):
            for label in ("cat", "dog"):
                (tmp_path / name / part / label).mkdir(parents=True)
                for number in range(9):
                    image = b"longer" if name == "c" and number == 8 else b"image"
                    (tmp_path / name / part / label / f"{number}.png").write_bytes(image)
    text = "data: {dataset: image-folder, image_size: 8, validation_size: 4, batch_size: 2}"
    a, b, c = (identity(plan(text, f"data.root={name}").only()) for name in "abc")
    assert a == b != c


def test_golden_id(plan: Any) -> None:
    """A change here renames every folder that users have: raise IDENTITY_VERSION knowingly."""
    assert run_id(plan("").only()) == "batch-before_s00_51eddb73"


def test_ids_do_not_depend_on_the_grid(plan: Any) -> None:
    few = plan("{setups: {BN before: }, axes: {data.batch_size: [64], optim.lr: [1e-5]}}").runs
    more = plan(
        "{setups: {BN before: }, axes: {data.batch_size: [1024, 64], optim.lr: [10, 1e-5]}}"
    ).runs
    assert run_id(few[0]) in {run_id(run) for run in more}
    assert run_id(few[0]).startswith("bn-before_bs064_lr1e-05_s00_")
    assert cell_label(few[0]) == "BN before bs=64 lr=1e-05"
    assert point(few[0]) == {"data.batch_size": 64, "optim.lr": 1e-5}


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
    assert folder_part(key, value) == part


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
    ids = [run_id(run) for run in plan(text, over=("model.activation=leaky-relu",)).runs]
    assert len(set(ids)) == 2
    assert all(len(each) == 64 for each in ids)
