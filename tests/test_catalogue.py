"""What may be found is described in full, and the code that is advised runs."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import bnbench
from bnbench.catalogue import FINDINGS, PAGE, Known, _read

LINES, COLUMNS = 4, 76
"""Of code: as much as is read at a glance, and fits a terminal when it is indented."""


class Layer(nn.Module):
    """A normalization layer of the user's own, with what else `self` stands for."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))
        self.conv = nn.Conv2d(3, 64, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(8, momentum=0.9)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU())
        self.norm = nn.InstanceNorm2d(8, track_running_stats=True)
        self.head = nn.Linear(8 * 4 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.norm(self.backbone(x)).flatten(1)))


def theirs() -> dict[str, object]:
    """What the code takes for granted."""
    x, y = torch.randn(32, 3, 6, 6), torch.arange(32) % 2
    dataset = TensorDataset(x, y)
    loader = DataLoader(dataset, batch_size=8)
    return {
        **{"torch": torch, "nn": nn, "DataLoader": DataLoader, "bnbench": bnbench},
        **{"model": Net(), "train_loader": loader, "eval_loader": loader, "self": Layer()},
        **{"dataset": dataset, "domain_a": dataset, "domain_b": dataset, "x": x, "y": y},
        **{"left": x, "right": x, "averaged": AveragedModel(Net())},
    }


def run(known: Known) -> dict[str, object]:
    names = theirs()
    exec(known.code, names)
    return names


@pytest.mark.parametrize("name", FINDINGS)
def test_every_part_is_there(name: str) -> None:
    known = FINDINGS[name]
    assert all(asdict(known).values())
    lines = known.code.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert all("https://" in source for source in known.sources.splitlines())


@pytest.mark.parametrize("name", [name for name in FINDINGS if name != "padding-counted"])
def test_the_code_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Net().state_dict(), "last.pt")
    run(FINDINGS[name])


def test_padding_is_left_out() -> None:
    names = theirs()
    x, lengths = torch.randn(4, 5, 3), torch.tensor([5, 2, 3, 1])
    names |= {"x": x, "lengths": lengths, "norm": nn.BatchNorm1d(3)}
    exec(FINDINGS["padding-counted"].code, names)
    valid = torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)])
    mean, deviation = valid.mean(0), valid.std(0, correction=0)
    y = names["y"]
    assert isinstance(y, Tensor)
    assert torch.allclose(y[1, :2], (x[1, :2] - mean) / deviation, atol=1e-4)
    assert not y[1, 2:].any()


@pytest.mark.parametrize("name", ["momentum-too-high", "instance-norm-tracks", "stale", "frozen"])
def test_the_code_does_what_is_advised(name: str) -> None:
    model = run(FINDINGS[name])["model"]
    assert isinstance(model, Net)
    batch: Any = model.backbone[1]
    instance = model.norm
    match name:
        case "momentum-too-high":
            assert batch.momentum == 0.1
        case "instance-norm-tracks":
            x = torch.randn(4, 8, 4, 4)
            trained = copy.deepcopy(instance).train()
            assert torch.equal(instance.eval()(x), trained(x))
        case "stale":
            assert not torch.equal(batch.running_mean, torch.zeros(8))
        case "frozen":
            assert not batch.training
            assert model.training
            assert not any(each.requires_grad for each in batch.parameters())
        case _:  # that it runs is all
            pass


def test_a_part_that_is_missing_is_seen() -> None:
    page = PAGE.read_text(encoding="utf-8")
    with pytest.raises(TypeError, match="cause"):
        _read(page.replace("**Cause:**", "**Because:**", 1))
