"""A dry run of numbers at their limits: it ends at once, in little memory, and says what it found.

What is too large is refused with the numbers, or reckoned; nothing of that size is ever made.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bnbench import __main__  # noqa: F401  threads that wait burn no core, as for a user
from bnbench.assemble import build_run
from bnbench.config import loading, plans, schema
from bnbench.machine import Pace
from bnbench.runner import rehearsal
from bnbench.runner.settings import Settings
from tests.commands import bnbench
from tests.config.test_limits import numbers
from tests.processes import completed

pytestmark = pytest.mark.usefixtures("own_folder")

MEGABYTES = 500
"""Of memory in addition."""
NEEDED: dict[str, dict[str, Any]] = {
    "ghost": {"batch_size": 8},
    "torchvision": {"name": "resnet18"},
}
FAR = ("image-folder", "fashion-mnist", "mnist", "kmnist", "cifar10", "cifar100", "svhn")

Number = tuple[str, str | None, str | None, str, float]
"""Block, tag, kind, key and value."""


def extremes() -> list[Number]:
    """Each number of each kind at its minimum and its maximum."""
    found: list[Number] = []
    for family in schema.BLOCKS.values():
        for kind, model in family.models.items():
            whole = model.model_json_schema()
            for path, part in numbers(whole, whole):
                if path == "betas" or kind in FAR:
                    continue
                low, high = part.get("minimum", 1e-300), part.get("maximum", 0.999999)
                found += [(family.name, family.tag, kind, path, value) for value in (low, high)]
    return found


def written(chosen: list[Number]) -> str:
    """A file that sets these numbers; of two kinds of a block the later counts."""
    tree: dict[str, Any] = {}
    for name, tag, kind, path, value in chosen:
        block = tree.setdefault(name, {})
        if tag is not None and block.get(tag) != kind:
            block.clear()
            block |= {tag: kind, **NEEDED.get(kind or "", {})}
        *around, key = path.removesuffix(".[]").split(".")
        for part in around:
            block = block.setdefault(part, {})
        length = 10 if kind == "plain" else 100
        block[key] = [value] * length if path.endswith("[]") else value
    return json.dumps(tree)


def peak() -> float:
    """Megabytes that this process had at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def cpu() -> float:
    """Seconds of CPU time of this process, and of those that it has waited for."""
    return sum(os.times()[:4])


@cache
def importing() -> float:
    """Seconds of CPU time that a worker takes to import what it needs."""
    begun = cpu()
    completed(sys.executable, "-c", "import bnbench.runner.execution")
    return cpu() - begun


def judge(text: str, *arguments: str) -> None:
    """A dry run of a file ends at once, with what is known or a fault: what a worker imports takes
    most of its CPU time, on any processor."""
    Path("x.yaml").write_text(text)
    command = arguments or ("sweep", "x.yaml", "--dry-run")
    allowed = 2 * importing()
    begun, before = cpu(), peak()
    said = bnbench(*command)
    assert said.code in (0, 2), said.err
    assert "unexpected" not in said.err
    if said.code == 2:
        assert "x.yaml:" in said.err
    assert cpu() - begun < allowed, text
    assert peak() - before < MEGABYTES, text


@pytest.mark.slow
def test_each_number_at_its_limits() -> None:
    judge("{}", "configs", "check", "x.yaml")  # what is imported and loaded once
    for number in extremes():
        judge(written([number]), "configs", "check", "x.yaml")
    assert len(extremes()) > 150


@pytest.mark.slow
def test_a_dry_run_of_what_makes_a_run_long() -> None:
    judge("{}")
    for number in extremes():
        if number[0] in ("data", "model", "train", "compute") and number[4] > 1:
            judge(written([number]))


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(extremes()), min_size=1, max_size=4))
def test_some_numbers_at_their_limits(chosen: list[Number]) -> None:
    judge("{}", "configs", "check", "x.yaml")
    judge(written(chosen))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "model: {blocks: 100, widths: [8, 8, 8, 8, 8, 8, 8, 8, 8, 8]}",
        "model: {kind: resnet, depth: 602}\nnorm: {kind: evonorm-s0}",
        "train: {steps: 1000000000, evaluations: 100000, log_every: 1}\nprobes: {landscape: }",
        "axes: {optim.lr: {log: [0.001, 1, 10000]}}",
        "seeds: 10000",
        "data: {dataset: synthetic, train_images: 5000000, image_size: 32}",
        "model: {kind: mlp, widths: [20000, 20000]}",
        "probes: {batch_noise: {images: 1000000000, companions: 1000}}",
    ],
)
def test_much_of_everything(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNBENCH_MEMORY_GB", "1000")
    judge("{}", "configs", "check", "x.yaml")
    judge(text, "configs", "check", "x.yaml")
    if "axes" not in text and "seeds" not in text:
        judge(text)


def test_what_is_too_large_to_try_is_reckoned_as_what_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine whose steps take what the arithmetic says; multiplications as torch counts them,
    two operations each."""
    Path("x.yaml").write_text("train: {steps: 300}\ncompute: {threads: 1}")
    (run,) = plans.expand(loading.load_experiment(Path("x.yaml"))).runs
    with FlopCounterMode(display=False) as counted:
        built, _ = build_run(run, torch.device("cpu"))
        images, _ = built.batch_at(0)
        built.model(images)
    step = 3 * counted.get_total_flops() / 2 / rehearsal.PRODUCTS_PER_SECOND
    monkeypatch.setattr(rehearsal, "step_seconds", lambda *_, **__: {1: step})
    monkeypatch.setattr(rehearsal, "EVALUATED_SECONDS", 0.0)
    monkeypatch.setattr(Pace, "read", lambda _: 1.0)
    assert rehearsal.reckoned(run) is None
    measured = rehearsal.measure(run, Settings(threads=1))
    monkeypatch.setattr(rehearsal, "TRIED_PRODUCTS", 0)
    rough = rehearsal.measure(run, Settings(threads=1))
    assert rough.rough
    assert not measured.rough
    assert rough.seconds == pytest.approx(measured.seconds, rel=0.01)
    assert measured.bytes / 2 < rough.bytes < measured.bytes * 2


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, 6_000_000_000))
from bnbench.cli import app
for name in sys.argv[1:]:
    try:
        app(["configs", "check", name])
    except SystemExit as end:
        print(name, end.code, file=sys.stderr)
"""
LARGE = {
    "widths": "model: {widths: [65536, 65536, 65536]}",
    "image_size": "data: {dataset: synthetic, image_size: 65536}",
    "train_images": "data: {dataset: synthetic, train_images: 1000000000}",
}


@pytest.mark.slow
def test_in_a_process_with_little_memory() -> None:
    for name, text in (LARGE | {"fits": "data: {eval_batch_size: 1000000000}"}).items():
        Path(name).with_suffix(".yaml").write_text(text)
    names = [f"{name}.yaml" for name in (*LARGE, "fits")]
    done = completed(sys.executable, "-c", LIMITED, *names)
    for name in names:
        said, _, rest = done.stderr.partition(f"{name} {0 if name == 'fits.yaml' else 2}\n")
        assert rest or name == "fits.yaml", done.stderr
        assert ("this machine has 6.0 GB" in said) == (name != "fits.yaml")
        done.stderr = rest
