"""Networks that cannot be made or trained are refused before the first run, with the key to change.

Each expected text is `setup KEY, KEY …: message` and a hint. Whether config points at the right
line for these keys is tested with config.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from bnbench.assemble.check import check
from bnbench.config import loading, plans, schema
from bnbench.config.feasible import networks
from tests.runs import small_config

MLP = "model: {kind: mlp, widths: [4]}\n"
ZERO = "model: {kind: resnet, zero_init_last_norm: true, "
VISION = "model: {kind: torchvision, name: resnet18}\n"
POINT = "data: {dataset: synthetic, image_size: 4, train_images: 1000, validation_size: 99, "
GROUPS = "norm.groups norm.kind model.kind model.widths"
ONE = "1 channel of 1 image on a 1×1 map leaves one value per statistic"
BATCH = f"data.batch_size norm.kind model.kind | data.batch_size: {ONE}"
NORM_BATCH = f"norm.batch_size norm.kind model.kind | norm.batch_size: {ONE}"
KIND = "norm.kind model.kind model.widths"
PLACEMENT = "norm.placement norm.kind model.kind"
OF_VISION = f"{PLACEMENT} model.name | norm.placement: a torchvision"
WIDTHS = "model.widths norm.kind"
ZERO_NORM = "model.zero_init_last_norm model.name model.kind | model.zero_init_last_norm: "
AFFINE = "optim.train_only norm.affine norm.kind | optim.train_only: the "


def said(text: str, folder: Path) -> str:
    """Setup, keys, message and hint of each refused network of a file."""
    path = folder / "x.yaml"
    path.write_text(text)
    lines = []
    for config, obstacle in check(plans.expand(loading.load_experiment(path)).runs):
        setup = f"{config.setup}: " if "setups" in text else ""
        hint = f"\n  {obstacle.hint}" if obstacle.hint else ""
        lines.append(f"{setup}{' '.join(obstacle.keys)} | {obstacle.message}{hint}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {widths: [10]}\nnorm: {kind: group}",
         f"{GROUPS} | norm.groups: 10 channels do not split into 4 groups (model.widths)"),
        (MLP + "norm: {kind: group, groups: 4}", f"{GROUPS} | norm.groups: {ONE} "
         "(model.widths)"),
        ("model: {kind: mlp, widths: [1]}\nnorm: {kind: layer}", f"{WIDTHS} | model.widths: {ONE}"),
        (MLP + "data: {batch_size: 1}", BATCH),
        (MLP + "norm: {batch_size: 1}", NORM_BATCH),
        # 4 → 2 → 1 pixels; 901 images in batches of 100
        (POINT + "batch_size: 1}", BATCH),
        (POINT + "batch_size: 100, drop_last: false}", "data.drop_last data.batch_size | "
         f"data.drop_last: the last batch of an epoch has size 1: {ONE}\n"
         "  write data.drop_last: true"),
        (MLP + "norm: {kind: ghost, batch_size: 1}", NORM_BATCH),
        (MLP + "norm: {kind: batch-renorm}\ndata: {batch_size: 1}", BATCH),
        (MLP + "norm: {kind: frozen}\ndata: {batch_size: 1}", BATCH),
        (MLP + "norm: {kind: instance}", f"{KIND} | norm.kind: {ONE}\n"
         "  batch, group and layer norm share statistics between images or "
         "channels"),
        (MLP + "norm: {kind: frn}", f"{KIND} | norm.kind: {ONE}\n"
         "  batch, group and layer norm share statistics between images or channels"),
        ("model: {kind: mlp, widths: [1]}\nnorm: {kind: rms}", f"{WIDTHS} | model.widths: {ONE}"),
        ("model: {kind: mlp, widths: [1, 4]}\nnorm: {kind: scaled-ws}", f"{WIDTHS} | "
         "model.widths: after 1 channel a filter has one weight; standardized, it would be 0"),
        ("norm: {kind: evonorm-s0, groups: 3}\nmodel: {widths: [4]}", f"{GROUPS} | norm.groups: 4 "
         "channels do not split into 3 groups (model.widths)"),
        ("model: {kind: resnet, width: 12}\nnorm: {kind: layer}\nsetups: {a: {norm: {kind: "
         "group-ws, groups: 16}}}", f"a: {GROUPS[:-1]} | norm.groups: 12 channels do not split "
         "into 16 groups (model.width)"),
        # kinds and what does not go with them
        ("model: {kind: resnet, depth: 21}", "model.depth model.name model.kind | model.depth: 21 "
         "is not 6n + 2\n  8, 14, 20, 32, 44, 56, 110"),
        ("model: {kind: resnet, depth: 2}", "model.depth model.name model.kind | model.depth: 2 "
         "is not 6n + 2\n  8, 14, 20, 32, 44, 56, 110"),
        (ZERO + "variant: pre}", ZERO_NORM + "in variant pre a branch ends in a convolution\n"
         "  write variant: post"),
        (ZERO + "}\nnorm: {placement: after}", ZERO_NORM + "with placement after a branch ends in "
         "a convolution\n  write placement: before"),
        (ZERO + "}\nnorm: {affine: false}", ZERO_NORM + "the norms have no γ\n"
         "  affine norms have one"),
        (ZERO + "}\nnorm: {kind: frn}", ZERO_NORM + "a norm that is the activation as well cannot "
         "end a branch"),
        (VISION + "norm: {placement: after}", f"{OF_VISION} network "
         "decides itself where its norms stand\n  leave norm.placement at before"),
        (VISION + "norm: {kind: frn}", "norm.kind model.kind model.name | norm.kind: frn "
         "changes more than the norm layers, which is all that a torchvision network lets others "
         "choose\n"
         "  model.kind: plain, mlp and resnet take it"),
        (VISION + "norm: {kind: group, groups: 5}", "norm.groups norm.kind model.kind model.name | "
         "norm.groups: bn1, layer1.0.bn1, layer1.0.bn2 and 2 more: 64 channels do not split into 5 "
         "groups; layer2.0.bn1, layer2.0.bn2, layer2.0.downsample.1 and 2 more: 128 channels do "
         "not split into 5 groups; layer3.0.bn1, layer3.0.bn2, layer3.0.downsample.1 and 2 more: "
         "256 channels do not split into 5 groups and 1 more (model.name)\n"
         "  these divide the channels of every layer: 1, 2, 4, 8, 16, 32, 64"),
        ("model: {kind: torchvision, name: mobilenet_v2}", "model.stem model.name model.kind | "
         'model.stem: "mobilenet_v2" has no small stem, only torchvision\'s resnets have one\n'
         "  write stem: imagenet"),
        ("norm: {kind: instance, placement: after}", f"{PLACEMENT} model.widths | "
         "norm.placement: after the "
         "last activation instance norm makes the mean of each channel β, whatever the image: the "
         "head would see no image at all\n  write norm.placement: before"),
        ("optim: {train_only: norm}\nnorm: {kind: none}", AFFINE + "network has no norms to train"),
        ("optim: {train_only: norm}\nnorm: {kind: scaled-ws}",
         AFFINE + "network has no norms to train"),
        ("optim: {train_only: norm}\nnorm: {affine: false}", AFFINE + "norm layers of the network "
         "have no γ and β to train\n  affine norms have a γ and a β"),
    ],
)  # fmt: skip
def test_refused(text: str, expected: str, tmp_path: Path) -> None:
    assert said(text, tmp_path) == expected


def test_a_name_that_torchvision_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    line, hint = said("model: {kind: torchvision, name: resnet17}", tmp_path).splitlines()
    assert line.startswith('model.name model.kind | model.name: "resnet17" is not a ')
    assert "resnet18" in hint


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
        "norm: {kind: ghost, batch_size: 64}",
        "norm: {kind: batch-renorm, r_max: 1, d_max: 0}",
        "norm: {kind: frozen, freeze_after: 0}\nmodel: {kind: resnet, depth: 110, width: 8}",
        MLP + "norm: {kind: rms}",
        MLP + "norm: {kind: scaled-ws}",
        ZERO + "}",
        ZERO + "}\nnorm: {kind: none}",
        VISION,
        VISION + "norm: {kind: none}",
        "model: {kind: torchvision, name: wide_resnet50_2}",
        "model: {kind: torchvision, name: mobilenet_v2, stem: imagenet}",
        "optim: {train_only: norm}\nnorm: {kind: frn}",
        "model: {widths: [8, 8, 8, 8, 8, 8, 8, 8, 8]}",
    ],
)
def test_allowed(text: str, tmp_path: Path) -> None:
    assert said(text, tmp_path) == ""


def test_every_kind_of_network_and_norm_is_tried(tmp_path: Path) -> None:
    text = """
axes:
  model.kind: [plain, mlp, resnet]
setups:
"""
    kinds = [
        get_args(field.annotation)[0]
        for norm in get_args(get_args(schema.NormConfig)[0])
        if (field := norm.model_fields["kind"]) and norm is not schema.CustomNormConfig
    ]
    for kind in kinds:
        size = ", batch_size: 8" if kind == "ghost" else ""
        text += f"  {kind}: {{norm: {{kind: {kind}{size}}}}}\n"
    refused = said(text, tmp_path).splitlines()
    assert {line.split(":")[0] for line in refused if line[0] != " "} == {"instance", "frn"}


def test_the_setups_concerned_are_named_and_networks_that_are_the_same_tried_once(
    tmp_path: Path,
) -> None:
    text = """
norm: {kind: group, groups: 3}
setups: {a: {}, b: {norm: {kind: layer}}, c: {optim: {schedule: constant}}}
axes: {data.batch_size: [2, 4], optim.lr: [1, 2, 3]}
seeds: 4
"""
    refused = f"{GROUPS} | norm.groups: 8 channels do not split into 3 groups (model.widths)"
    expected = [f"a: {refused}", f"c: {refused}"] * 2
    assert said(text, tmp_path).splitlines() == expected
    runs = plans.expand(loading.load_experiment(tmp_path / "x.yaml")).runs
    assert len(runs) == 72
    assert len(networks(runs)) == 4


def test_faults_point_at_the_keys_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("""model: {kind: resnet, width: 12}
setups:
  a: {norm: {kind: group, groups: 5}}
  b: {norm: {kind: group, groups: 4}}
  c: {norm: {kind: layer}, model: {depth: 21}}
  d: {norm: {kind: rms}, model: {depth: 21}}
""")
    plan = plans.expand(
        loading.load_experiment(path, loading.Overrides(set=("model.zero_init_last_norm=true",)))
    )
    assert "\n".join(map(str, plan.faults(check(plan.runs)))) == (
        f"{path}:3:27: norm.groups: 12 channels do not split into 5 groups (model.width) (setup a)"
        f"\n{path}:5:36: model.depth: 21 is not 6n + 2 (setup c)\n  8, 14, 20, 32, 44, 56, 110"
        f"\n{path}:6:34: model.depth: 21 is not 6n + 2 (setup d)\n  8, 14, 20, 32, 44, 56, 110"
    )
    plan = plans.expand(loading.load_experiment(path, loading.Overrides(set=("norm.groups=8",))))
    assert str(plan.faults(check(plan.runs))[-1]).startswith("--set norm.groups: norm.groups: 12 ")


def test_nothing_is_run_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit\nclass Norm: ...\nclass Net: ...\n")
    custom = f"kind: custom, target: '{tmp_path}/mine.py:"
    assert said(f"norm: {{{custom}Norm'}}", tmp_path) == ""
    assert said(f"model: {{{custom}Net'}}", tmp_path) == ""
    decides = "network decides itself where its norms stand\n  leave norm.placement at before"
    assert said(f"norm: {{{custom}Norm', placement: after}}\n{VISION}", tmp_path) == (
        f"{OF_VISION} {decides}"
    )
    assert said(f"norm: {{placement: after}}\nmodel: {{{custom}Net'}}", tmp_path) == (
        f"{PLACEMENT} | norm.placement: a custom {decides}"
    )


def test_the_state_of_random_numbers_is_left_alone() -> None:
    before = torch.get_rng_state()
    assert check([small_config()]) == []
    assert torch.equal(torch.get_rng_state(), before)
