"""A loop with Accelerate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from bnbench.callbacks import AccelerateWatch
from tests.extras import required
from tests.watching.loops import data, network, optimizer

accelerate = required("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own


def trained(folder: Path, *, watched: bool) -> nn.Module:
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=2, log_with="tensorboard", project_dir=str(folder)
    )
    accelerator.init_trackers("board")
    torch.manual_seed(5)
    net = network(dropout=0.5)
    model, by, batches, val = accelerator.prepare(net, optimizer(net), data(shuffle=True), data())

    def loop() -> None:
        for _ in range(3):
            for x, y in batches:
                with accelerator.accumulate(model):
                    accelerator.backward(F.cross_entropy(model(x), y))
                    by.step()
                    by.zero_grad()

    if watched:
        with AccelerateWatch(accelerator, model, val=val, every=4, folder=None) as watching:
            loop()
        assert [each.name for each in watching.findings] == ["micro-batches"]
    else:
        loop()
    accelerator.end_training()
    return net


def test_the_gap_is_in_its_tracker_and_training_is_the_same(tmp_path: Path) -> None:
    watched, alone = trained(tmp_path / "a", watched=True), trained(tmp_path / "b", watched=False)
    files = [str(each) for each in (tmp_path / "a").rglob("events.out.tfevents*")]
    found: list[int] = []
    for each in files:
        board = EventAccumulator(each).Reload()
        if "gap/val_accuracy" in board.Tags()["scalars"]:
            found += [point.step for point in board.Scalars("gap/val_accuracy")]
    assert found == [4, 6]
    assert all(map(torch.equal, watched.state_dict().values(), alone.state_dict().values()))
