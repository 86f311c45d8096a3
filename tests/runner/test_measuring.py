"""What a run will take, from a few of its training steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bnbench.assemble import build_run
from bnbench.config import schema
from bnbench.machine import Pace
from bnbench.runner import rehearsal
from bnbench.runner.rehearsal import measure
from bnbench.runner.settings import Settings
from bnbench.train import Probe, Run
from tests.runs import small_config

PLAIN = schema.PlainModel()
TORCHVISION = schema.TorchvisionModel(kind="torchvision", name="resnet18")


@pytest.mark.parametrize("norm", [schema.BatchNormConfig(), schema.NoNorm(kind="none")])
def test_reckoned_evaluations_pass_as_many_images_as_real_ones(norm: schema.NormConfig) -> None:
    """Counted as they enter the network."""
    config = small_config(norm=norm)
    run, _ = build_run(config, torch.device("cpu"))
    seen: list[int] = []
    run.model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    for evaluate, expected in zip(
        (run.evaluate, run.evaluate_last), rehearsal._passed(config, run.model), strict=True
    ):
        seen.clear()
        evaluate()
        assert sum(seen) == expected


def test_what_probes_take_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three readings of 5 s, by an invented clock; of what else a run does it sees nothing."""
    clock = [0.0]

    def read(_: int) -> list[Any]:
        clock[0] += 5.0
        return []

    def built(*arguments: Any, **named: Any) -> tuple[Run, Any]:
        run, about = build_run(*arguments, **named)
        probe = Probe(read_after=frozenset({0, 2, 4}), read=read)
        return replace(run, probes={"one": probe}), about

    monkeypatch.setattr(rehearsal, "build_run", built)
    monkeypatch.setattr(rehearsal, "step_seconds", lambda _, threads, **__: {threads[0]: 0.0})
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Pace, "read", lambda _: 2.0)
    assert measure(small_config(), Settings(device="cpu")).seconds == 7.5


def test_of_large_probes_no_more_than_their_default_is_tried() -> None:
    """The rest is in proportion: 62.5 times as many sets of other images."""
    noise = schema.BatchNoiseProbe(images=32, companions=1000)
    config = small_config(probes=schema.ProbesConfig(batch_noise=noise))
    probes, passes, times = rehearsal._probes(config)
    assert probes.batch_noise == schema.BatchNoiseProbe(images=32, companions=16)
    assert passes == {"batch_noise": 32 * 16}
    assert times == {"batch_noise": 1000 / 16}


def test_of_large_networks_few_images_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 0.5 s and 0.1 s for each image, by an invented clock: 8 and 2 are tried."""
    tried = []

    def invented(run: Run, threads: list[int], **_: float) -> dict[int, float]:
        tried.append(len(run.batch_at(0)[1]))
        return {threads[0]: 0.5 + 0.1 * tried[-1]}

    monkeypatch.setattr(rehearsal, "step_seconds", invented)
    monkeypatch.setattr(Pace, "read", lambda _: 2.0)
    data = small_config().data.model_copy(update={"batch_size": 32, "augment": "none"})
    config = small_config(model=TORCHVISION, data=data, norm=schema.GroupNormConfig(kind="group"))
    cost = measure(config, Settings(device="cpu"))
    assert tried == [8, 2]
    assert cost.basis == "training steps of 8 images"
    # 4 steps of 32; three evaluations of 16 + 16 images, one of 64 + 32 + 32, each a third; and
    # half of that on a core of its own.
    assert cost.seconds == pytest.approx((4 * (0.5 + 3.2) + 0.1 / 3 * (3 * 32 + 128)) / 2, rel=0.01)


def test_custom_layers_get_whole_batches(tmp_path: Path) -> None:
    """They may count images."""
    path = tmp_path / "layer.py"
    path.write_text("class Layer:\n    ...\n")
    norm = schema.CustomNormConfig(kind="custom", target=f"{path}:Layer")
    data = small_config().data.model_copy(update={"batch_size": 32})
    large = small_config(model=TORCHVISION, data=data)
    ghost = schema.GhostNormConfig(kind="ghost", batch_size=16)
    changes: list[dict[str, Any]] = [{}, {"norm": norm}, {"norm": ghost}, {"model": PLAIN}]
    found = [rehearsal.few_images(large.model_copy(update=each)) for each in changes]
    assert found == [8, 32, 32, 32]
