"""Configurations of small runs: one of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from bnbench.assemble import build_run
from bnbench.config import schema
from bnbench.train import Run
from tests.norms import rows

CPU = torch.device("cpu")


def synthetic(**changed: Any) -> schema.SyntheticData:
    given: dict[str, Any] = {
        "train_images": 60,
        "test_images": 14,
        "classes": 3,
        "channels": 2,
        "image_size": 8,
        "validation_size": 12,
        "batch_size": 8,
    }
    return schema.SyntheticData(dataset="synthetic", **{**given, **changed})


SMALL = schema.PlainModel(widths=(4, 8), blocks=1)
SMALLEST = schema.MLPModel(kind="mlp", widths=(4,))


def config(**parts: Any) -> schema.RunConfig:
    given: dict[str, Any] = {
        "data": synthetic(),
        "model": SMALL,
        "train": schema.TrainConfig(steps=2, evaluations=1, log_every=1),
    }
    return schema.RunConfig(experiment="t", setup="arm", **{**given, **parts})


def built(config: schema.RunConfig) -> Run:
    return build_run(config, CPU)[0]


def epoch(run: Run, steps: int, first: int = 0) -> tuple[Tensor, Tensor]:
    batches = [run.batch_at(step) for step in range(first, first + steps)]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def kinds(union: Any) -> list[type[schema.Block]]:
    """The classes of a discriminated union, Annotated[A | B | …, …]."""
    return list(get_args(get_args(union)[0]))


CUSTOM = Path(__file__).resolve().parents[1] / "custom_layers.py"

EXAMPLES: dict[str, list[schema.Block]] = {
    "norm": [
        *(rows.settings(kind) for kind in rows.KINDS if kind != "custom"),
        schema.BatchNormConfig(batch_size=2, placement="after", momentum=None),
        schema.BatchNormConfig(affine=False),
        schema.LayerNormConfig(kind="layer", placement="after"),
        schema.CustomNormConfig(kind="custom", target=f"{CUSTOM}:PeakNorm", options={"eps": 0.1}),
    ],
    "model": [
        SMALL,
        schema.MLPModel(kind="mlp", widths=(8, 4)),
        # Fixup and a zeroed γ keep some weights where they are for a step or two.
        schema.ResNetModel(kind="resnet", depth=8, width=8, fixup=False),
        schema.ResNetModel(kind="resnet", depth=8, width=8, variant="pre", fixup=False),
        schema.TorchvisionModel(kind="torchvision", name="resnet18"),
        schema.TimmModel(kind="timm", name="test_resnet", options={"zero_init_last": False}),
        schema.CustomModel(kind="custom", target=f"{CUSTOM}:TwoLayers", options={"width": 4}),
        schema.CustomModel(kind="custom", target=f"{CUSTOM}:build_small_unet", norm="swap"),
    ],
    "optim": [
        schema.SGDConfig(weight_decay=0.01),
        schema.AdamWConfig(kind="adamw", lr=0.01, decay_norm_and_bias=True),
    ],
}


def smooth(model: schema.Block) -> schema.Block:
    """With sigmoids: a rectifier can be dead for two steps, and a weight then rightly stays."""
    if "activation" not in type(model).model_fields:
        return model
    return model.model_copy(update={"activation": "sigmoid"})
