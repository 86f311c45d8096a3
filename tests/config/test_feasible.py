"""What is refused before the first run starts, and what is only warned of."""

from __future__ import annotations

from typing import Any

import pytest

from bnbench.config.datasets import folder_facts

MLP = "model: {kind: mlp, widths: [4]}\n"
POINT = "data: {dataset: synthetic, image_size: 4, train_images: 1000, validation_size: 99, "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {widths: [10]}\nnorm: {kind: group}",
         "x.yaml:2:8: norm.groups: 10 channels do not split into 4 groups (model.widths)"),
        (MLP + "norm: {kind: group, groups: 4}", "x.yaml:2:21: norm.groups: 4 channels in 4 groups "
         "on a 1×1 map leave one value per group"),
        ("model: {kind: mlp, widths: [1]}\nnorm: {kind: layer}", "x.yaml:1:20: model.widths: 1 "
         "channel on a 1×1 map leaves layer norm one value"),
        (MLP + "data: {batch_size: 1}", "x.yaml:2:8: data.batch_size: 1 image on a 1×1 map leaves "
         "batch norm one value per channel"),
        (MLP + "norm: {batch_size: 1}", "x.yaml:2:8: norm.batch_size: 1 image on a 1×1 map leaves "
         "batch norm one value per channel"),
        # 4 → 2 → 1 pixels; 901 images in batches of 100
        (POINT + "batch_size: 1}", "x.yaml:1:84: data.batch_size: 1 image on a 1×1 map leaves "
         "batch norm one value per channel"),
        (POINT + "batch_size: 100, drop_last: false}", "x.yaml:1:101: data.drop_last: the last of "
         "901 images is a batch of its own; on a 1×1 map it leaves batch norm one value per channel"
         "\n  write data.drop_last: true"),
        (POINT + "batch_size: 100, drop_last: false}\nnorm: {batch_size: 50}",
         "x.yaml:1:101: norm.batch_size: 50 does not divide the last batch of an epoch, 1 of 901 "
         "images\n  write data.drop_last: true"),
        ("norm: {batch_size: 48}", "x.yaml:1:8: norm.batch_size: 48 does not divide "
         "data.batch_size 64"),
        ("norm: {batch_size: 128}", "x.yaml:1:8: norm.batch_size: 128 is larger than "
         "data.batch_size 64"),
        ("data: {validation_size: 10000}", "x.yaml:1:8: data.validation_size: 10000 of 10000 "
         "training images leave none to train on"),
        ("data: {train_size: 9500}", "x.yaml:1:8: data.train_size: 9500 and 1000 for validation "
         "are more than the 10000 training images\n  at most 9000"),
        ("data: {train_size: 9, batch_size: 2}", "x.yaml:1:8: data.train_size: 9 images for 10 "
         "classes"),
        ("data: {validation_size: 1}", "x.yaml:1:8: data.validation_size: 1 image for 10 classes"),
        ("data: {validation_size: 9995, batch_size: 2}", "x.yaml:1:8: data.validation_size: 9995 "
         "of 10000 training images leave 5 to train 10 classes on"),
        ("data: {batch_size: 9001}", "x.yaml:1:8: data.batch_size: a batch of 9001 is larger than "
         "the 9000 training images"),
        # the defaults alone cannot do it: the fault points at what made it so
        ("data: {dataset: synthetic, train_images: 1020}", "x.yaml:1:28: data.batch_size: a batch "
         "of 64 is larger than the 20 training images"),
    ],
)  # fmt: skip
def test_refused(faults: Any, text: str, expected: str) -> None:
    assert faults(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "data: {batch_size: 1}",  # a 7×7 map has 49 values per channel
        "data: {batch_size: 1}\nnorm: {kind: none}\nmodel: {kind: mlp}",
        MLP + "norm: {kind: group, groups: 2}",
        POINT + "batch_size: 2}",
        # a stride of 2 leaves 2 of 3 pixels a side, not 1
        "model: {widths: [8, 8]}\n" + POINT.replace("size: 4", "size: 3") + "batch_size: 1}",
        POINT + "batch_size: 100, drop_last: true}",
        "norm: {batch_size: 64}",
        "model: {widths: [8, 8, 8, 8, 8, 8, 8, 8, 8]}",
        "data: {train_size: 9000}",
        "data: {batch_size: 9000}\ntrain: {steps: 99}",
    ],
)
def test_allowed(plan: Any, text: str) -> None:
    assert len(plan(text).runs) == 1


def test_the_setups_concerned_are_named(faults: Any) -> None:
    text = """
setups:
  a: {norm: {kind: group, groups: 3}}
  b: {norm: {kind: layer}}
axes: {data.batch_size: [2, 9999], optim.lr: [1, 2, 3]}
seeds: 4
"""
    assert faults(text) == (
        "x.yaml:3:27: norm.groups: 16 channels do not split into 3 groups (model.widths) (setup a)"
        "\nx.yaml:3:27: norm.groups: 32 channels do not split into 3 groups (model.widths) (setup "
        "a)\nx.yaml:3:27: norm.groups: 8 channels do not split into 3 groups (model.widths) (setup "
        "a)\nx.yaml:5:29: data.batch_size: a batch of 9999 is larger than the 9000 training images"
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
    assert plan("train: {steps: 10}").warnings == ()
    assert plan("train: {steps: 10}", "norm.momentum=null").warnings == ()
    assert len(plan("", "norm.momentum=0").warnings) == 1


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
        "x.yaml:1:55: data.batch_size: a batch of 64 is larger than the 36 training images"
    )
    assert plan(text, "data.batch_size=36").only().data.batch_size == 36
    before = folder_facts(str(tmp_path / "a"))
    (tmp_path / "a" / "train" / "dog" / "0.png").write_bytes(b"other")
    folder_facts.cache_clear()
    assert folder_facts(str(tmp_path / "a")) == before  # names and sizes, not contents
    (tmp_path / "a" / "train" / "dog" / "0.png").write_bytes(b"longer")
    folder_facts.cache_clear()
    assert folder_facts(str(tmp_path / "a")).fingerprint != before.fingerprint
