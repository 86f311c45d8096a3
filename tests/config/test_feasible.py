"""What is refused before the first run starts, and what is only warned of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import datasets

MLP = "model: {kind: mlp, widths: [4]}\n"
ZERO = "model: {kind: resnet, zero_init_last_norm: true, "
VISION = "model: {kind: torchvision, name: resnet18}\n"
POINT = "data: {dataset: synthetic, image_size: 4, train_images: 1000, validation_size: 99, "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (POINT + "batch_size: 100, drop_last: false}\nnorm: {batch_size: 50}",
         "x.yaml:1:101: norm.batch_size: 50 does not divide the last batch of an epoch, 1 of 901 "
         "images\n  write data.drop_last: true"),
        ("norm: {kind: batch-renorm, correct_from: 0.25}", "x.yaml:1:28: norm.d_open: 0.19 is "
         "before norm.correct_from 0.25\n  the bounds open from correct_from to d_open"),
        ("norm: {kind: batch-renorm, correct_from: 0.5, r_open: 0.4, d_open: 0.5}",
         "x.yaml:1:47: norm.r_open: 0.4 is before norm.correct_from 0.5\n"
         "  the bounds open from correct_from to r_open"),
        ("norm: {kind: ghost, batch_size: 48}", "x.yaml:1:21: norm.batch_size: 48 does not divide "
         "data.batch_size 64"),
        ("norm: {kind: ghost, batch_size: 128}", "x.yaml:1:21: norm.batch_size: 128 is larger than "
         "data.batch_size 64"),
        ("norm: {kind: ghost, batch_size: 32}\ndata: {drop_last: false}", "x.yaml:2:8: "
         "norm.batch_size: 32 does not divide the last batch of an epoch, 40 of 9000 images\n"
         "  write data.drop_last: true"),
        ("norm: {batch_size: 48}", "x.yaml:1:8: norm.batch_size: 48 does not divide "
         "data.batch_size 64"),
        ("norm: {kind: frozen, batch_size: 48}", "x.yaml:1:22: norm.batch_size: 48 does not divide "
         "data.batch_size 64"),
        ("norm: {batch_size: 128}", "x.yaml:1:8: norm.batch_size: 128 is larger than "
         "data.batch_size 64"),
        ("data: {validation_size: 10000}", "x.yaml:1:8: data.validation_size: 10000 of 10000 "
         "training images leave none to train on\n  write 2000"),
        ("data: {validation_size: 0}\naxes: {optim.lr: [0.1, 1.0]}\ntune: {axis: optim.lr}",
         "x.yaml:1:8: data.validation_size: 0 leaves no image on which tune could choose optim.lr\n"
         "  hold out some: 1000"),
        ("data: {train_size: 9500}", "x.yaml:1:8: data.train_size: 9500 and 1000 for validation "
         "are more than the 10000 training images\n  at most 9000"),
        ("data: {train_size: 9, batch_size: 2}", "x.yaml:1:8: data.train_size: 9 images for 10 "
         "classes"),
        ("data: {validation_size: 1}", "x.yaml:1:8: data.validation_size: 1 image for 10 classes"),
        ("data: {validation_size: 9995, batch_size: 2}", "x.yaml:1:8: data.validation_size: 9995 "
         "of 10000 training images leave 5 to train 10 classes on\n  write 2000"),
        ("data: {batch_size: 9001}", "x.yaml:1:8: data.batch_size: a batch of 9001 is larger than "
         "the 9000 training images\n  at most 9000"),
        # the defaults alone cannot do it: the fault points at what made it so
        ("data: {dataset: synthetic, train_images: 1020}", "x.yaml:1:28: data.batch_size: a batch "
         "of 64 is larger than the 20 training images\n  at most 20"),
    ],
)  # fmt: skip
def test_refused(faults: Any, text: str, expected: str) -> None:
    assert faults(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "norm: {batch_size: 64}",
        "norm: {kind: ghost, batch_size: 64}",
        "norm: {kind: batch-renorm, correct_from: 0.19}",
        "data: {train_size: 9000}",
        "data: {batch_size: 9000}\ntrain: {steps: 99}",
    ],
)
def test_allowed(plan: Any, text: str) -> None:
    assert len(plan(text).runs) == 1


def test_the_setups_concerned_are_named(faults: Any) -> None:
    text = """
setups:
  a: {norm: {kind: ghost, batch_size: 3}}
  b: {norm: {kind: layer}}
axes: {data.batch_size: [2, 9999], optim.lr: [1, 2, 3]}
seeds: 4
"""
    assert faults(text) == (
        "x.yaml:3:27: norm.batch_size: 3 is larger than data.batch_size 2 (setup a)\n"
        "x.yaml:5:29: data.batch_size: a batch of 9999 is larger than the 9000 training images\n"
        "  at most 9000"
    )


def test_warnings_come_once_and_name_the_setups(plan: Any) -> None:
    text = """
optim: {weight_decay: 0.1, decay_norm_and_bias: true}
train: {steps: 5}
setups:
  none: {norm: {kind: none}}
  bn: {}
  ghost: {norm: {batch_size: 1}}
  gn: {norm: {kind: group}}
axes: {optim.lr: [0.1, 0.2]}
"""
    assert plan(text).warnings == (
        "norm.momentum 0.1: after 5 optimizer steps the running statistics are still 59 % their "
        "initial value (setups bn, ghost)",
        "optim.decay_norm_and_bias: weight decay pulls γ and β towards zero too (setups bn, ghost, "
        "gn)",
        "batch statistics over 1 image: batch norm trains as instance norm (setup ghost)",
    )
    assert len(plan("train: {steps: 28}").warnings) == 1  # 0.9^28 = 5.2 %
    assert plan("train: {steps: 29}").warnings == ()
    assert plan("train: {steps: 10}", "norm.momentum=null").warnings == ()
    assert len(plan("", "norm.momentum=0").warnings) == 1


def test_statistics_of_batches_are_judged_alike(plan: Any) -> None:
    text = """
train: {steps: 5}
norm: {momentum: 0.1}
setups:
  batch: {}
  ghost: {norm: {kind: ghost, batch_size: 1}}
  renorm: {norm: {kind: batch-renorm}}
  frozen: {norm: {kind: frozen}}
  noisy: {norm: {kind: noisy}}
  instance: {norm: {kind: instance}}
  frn: {norm: {kind: frn}}
"""
    # Frozen after 2 of 5 steps; 0.9² = 0.81
    assert plan(text).warnings == (
        "norm.momentum 0.1: after 2 optimizer steps the running statistics are still 81 % their "
        "initial value (setups batch, ghost, renorm, frozen, noisy)",
        "batch statistics over 1 image: batch norm trains as instance norm (setup ghost)",
    )


def test_statistics_that_freeze_before_they_move(plan: Any, tmp_path: Path) -> None:
    text = "setups: {a: {norm: {kind: frozen, freeze_after: 0.01}}, b: {norm: {kind: none}}}"
    assert plan(text, "train.steps=40").warnings == (
        "norm.freeze_after 0.01: of 40 optimizer steps none comes before the freeze: the running "
        "statistics stay at mean 0 and variance 1 (setup a)",
    )
    assert plan(text, "train.steps=3000").warnings == ()
    (tmp_path / "w.pt").write_bytes(b"measured statistics")
    tuned = f"model: {{kind: timm, name: resnet18, pretrained: w.pt}}\n{text}"
    assert plan(tuned, "train.steps=40").warnings == ()
    assert len(plan(text, "train.steps=1000", "norm.freeze_after=0").warnings) == 1


def folder(root: Any, images: int) -> None:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            for number in range(images):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"image")
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"no image")


def test_image_folders_are_counted(plan: Any, faults: Any, tmp_path: Any) -> None:
    text = "data: {dataset: image-folder, root: a, image_size: 8, validation_size: 4}"
    assert faults(text) == (
        f"x.yaml:1:31: data.root: {tmp_path / 'a' / 'train'} is not a folder\n"
        "  an image folder holds train/ and test/"
    )
    folder(tmp_path / "a", 20)
    assert faults(text) == (
        "x.yaml:1:55: data.batch_size: a batch of 64 is larger than the 36 training images\n"
        "  at most 36"
    )
    assert plan(text, "data.batch_size=36").only().data.batch_size == 36
    folder(tmp_path / "b", 20)
    for part in ("train", "test"):
        shutil.rmtree(tmp_path / "b" / part / "dog")
    one = "x.yaml:1:31: data: one class leaves nothing to learn"
    assert faults(text.replace("root: a", "root: b")) == one
    before = datasets.folder_facts(str(tmp_path / "a"), 3, 8)
    (tmp_path / "a" / "train" / "dog" / "0.png").write_bytes(b"other")
    datasets.folder_facts.cache_clear()
    assert (
        datasets.folder_facts(str(tmp_path / "a"), 3, 8) == before
    )  # names and sizes, not contents
    (tmp_path / "a" / "train" / "dog" / "0.png").write_bytes(b"longer")
    datasets.folder_facts.cache_clear()
    assert datasets.folder_facts(str(tmp_path / "a"), 3, 8).fingerprint != before.fingerprint
