"""What a run needs, against what a real network has; and the refusal of what does not fit."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnbench import machine
from bnbench.assemble import demand
from bnbench.assemble.check import check
from bnbench.assemble.model import make_model
from bnbench.config import loading, plans, schema
from bnbench.errors import UsageError
from bnbench.models.recipe import normalization_layers
from tests.runs import SMALL_DATA, small_config

NORMS: list[schema.NormConfig] = [
    schema.NoNorm(kind="none"),
    schema.BatchNormConfig(),
    schema.BatchNormConfig(placement="after"),
    schema.GroupNormConfig(kind="group", groups=2),
    schema.GroupWSConfig(kind="group-ws", groups=2),
    schema.ScaledWSConfig(kind="scaled-ws"),
    schema.EvoNormS0Config(kind="evonorm-s0", groups=2),
    schema.NoisyNormConfig(kind="noisy"),
]
MODELS: list[schema.ModelConfig] = [
    schema.PlainModel(widths=(4, 8), blocks=2, activation="silu"),
    schema.MLPModel(kind="mlp", widths=(8, 6)),
    schema.ResNetModel(kind="resnet", depth=8, width=8),
    schema.ResNetModel(kind="resnet", depth=14, width=8, variant="pre"),
]
SIDE, BATCH = 7, 40


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: f"{norm.kind}")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.kind}")
def test_shapes_are_those_of_the_real_network(
    norm: schema.NormConfig, model: schema.ModelConfig
) -> None:
    data = SMALL_DATA.model_copy(update={"image_size": SIDE})
    config = small_config(model=model, norm=norm, data=data)
    found = demand.shapes(config)
    network = make_model(config, (1, SIDE, SIDE), 4, 10)
    assert found.parameters == found.trained == sum(p.numel() for p in network.parameters())

    inputs: dict[str, torch.Size] = {}
    norms = normalization_layers(network)
    for name, layer in network.named_modules():
        if name in norms or isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(
                lambda _, given, __, name=name: inputs.update({name: given[0].shape[1:]})
            )
    saved: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {each.untyped_storage().data_ptr() for each in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = network(torch.randn(BATCH, 1, SIDE, SIDE)).sum()
    assert found.kept == sum(shape.numel() for shape in inputs.values())
    assert found.largest == max(shape.numel() for shape in inputs.values())
    assert [shape for _, shape in found.sets] == [
        inputs[name] for name, layer in norms.items() if hasattr(layer, "sets")
    ]
    # A bound from below, and not a useless one.
    kept = sum(size for where, size in saved.items() if where not in weights)
    assert kept / 4 < demand.FLOAT * BATCH * found.kept < 1.3 * kept
    del loss


def refusals(text: str, folder: Path) -> list[str]:
    path = folder / "x.yaml"
    path.write_text(text)
    plan = plans.expand(loading.load_experiment(path))
    refused = check(plan.runs)
    return [str(fault).removeprefix(f"{folder}/") for fault in plan.faults(refused)]


SYNTHETIC = "data: {dataset: synthetic, validation_size: 32"


@pytest.mark.parametrize(
    ("text", "place", "decisive"),
    [
        ("model: {widths: [60000, 60000]}", "1:9", "weights"),
        ("model: {kind: mlp, widths: [65536, 65536]}", "1:20", "weights"),
        ("model: {kind: resnet, width: 16384}", "1:23", "weights"),
        (f"{SYNTHETIC}, train_images: 1000000000}}", "1:49", "images"),
        (f"{SYNTHETIC}, image_size: 60000}}", "1:49", "a training step"),
        ("data: {batch_size: 9000}\nmodel: {blocks: 100, widths: [4096]}", "1:8",
         "a training step"),
        (f"{SYNTHETIC}, test_images: 90000, eval_batch_size: 90000}}\nmodel: {{widths: [4096]}}",
         "1:69", "an evaluation"),
        ("data: {dataset: synthetic, batch_size: 1, validation_size: 90000, classes: 90000, "
         "train_images: 180000, test_images: 90000}", "1:67", "an evaluation"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_numbers(
    text: str, place: str, decisive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnbench.assemble.check.memory_limit", lambda: 24 * 10**9)
    (line,) = refusals(text, tmp_path)
    said, hint = line.split("\n")
    assert said.startswith(f"x.yaml:{place}: a run needs ")
    assert said.endswith("; this machine has 24.0 GB")
    named = re.findall(r"[(,] ?([a-z ]+) ([\d,.]+) (kB|MB|GB|TB|PB)", said)
    powers = {"kB": 3, "MB": 6, "GB": 9, "TB": 12, "PB": 15}
    sizes = {what: float(size.replace(",", "")) * 10 ** powers[unit] for what, size, unit in named}
    assert max(sizes, key=lambda what: sizes[what]) == decisive
    limit = hint.split("BNBENCH_MEMORY_GB=")[1].split()[0]
    monkeypatch.setattr("bnbench.assemble.check.memory_limit", lambda: int(limit) * 10**9)
    assert refusals(text, tmp_path) == []


def test_each_setup_and_its_own_optimizer_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnbench.assemble.check.memory_limit", lambda: 14 * 10**9)
    text = "model: {kind: mlp, widths: [30000, 30000]}\nsetups:\n"
    text += "  a: {}\n  b: {optim: {kind: adamw}}\n  c: {optim: {momentum: 0.0}}\n"
    (line,) = refusals(text, tmp_path)
    assert "(setup b)" in line
    assert "weights 14.8 GB" in line


def test_the_environment_says_how_much_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNBENCH_MEMORY_GB", "1.5")
    assert machine.memory_limit() == 1_500_000_000
    monkeypatch.setenv("BNBENCH_MEMORY_GB", "much")
    with pytest.raises(UsageError, match="BNBENCH_MEMORY_GB is 'much', not a number\n  write"):
        check([small_config()])


def test_the_least_of_machine_group_and_ulimit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BNBENCH_MEMORY_GB", raising=False)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\n")
    (tmp_path / "own").write_text("0::/job\n")
    (tmp_path / "groups/job").mkdir(parents=True)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    limits: Any = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert machine.memory_limit() == 9_216_000
    (tmp_path / "groups/job/memory.max").write_text("max\n")
    assert machine.memory_limit() == 9_216_000
    (tmp_path / "groups/job/memory.max").write_text("5000000\n")
    assert machine.memory_limit() == 5_000_000
    limits = (4_000_000, -1)
    assert machine.memory_limit() == 4_000_000
