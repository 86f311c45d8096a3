"""What the processes of a group say to one another: two of them, in one process."""

from __future__ import annotations

import pickle
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from bnbench.watching.ranks import Ranks

POSTED = "bnbench.watch/0/3/1"
"""The key of what rank 1 says of step 3."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = dist.HashStore()  # type: ignore[attr-defined]
    monkeypatch.setattr("torch.distributed.distributed_c10d._get_default_store", lambda: found)
    monkeypatch.setattr("bnbench.watching.ranks._numbers", repeat(0))
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    return found


def ranks_with(monkeypatch: pytest.MonkeyPatch, *layers: dict[str, nn.Module]) -> list[Ranks]:
    """Each has posted its statistics at step 3."""
    ranks = []
    for number, each in enumerate(layers):
        monkeypatch.setattr(dist, "get_rank", lambda number=number: number)
        ranks.append(Ranks(each))
        ranks[-1].due(3)
        ranks[-1].post()
    return ranks


def norm(channels: int = 4, mean: float = 0.0) -> nn.Module:
    layer = nn.BatchNorm2d(channels)
    assert layer.running_mean is not None
    layer.running_mean.fill_(mean)
    return layer


@pytest.mark.usefixtures("store")
def test_the_same_is_the_same_whatever_layers_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"": norm(), "file": norm(3, mean=torch.nan), "a/ü": norm(mean=2.0)}
    leads, follows = ranks_with(monkeypatch, layers, layers)
    assert follows.differ() is None
    assert leads.differ() is None


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("mean", "off"), [(2.0, "2"), (torch.nan, "inf")])
def test_the_layer_that_is_furthest_off_is_named(
    mean: float, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"a": norm(), "b": norm(), "c": norm()}
    leads, _ = ranks_with(monkeypatch, here, here | {"b": norm(mean=mean), "c": norm(mean=1.0)})
    assert leads.differ() == (
        ["b", "c"],
        "2 of 3 layers differ between 2 ranks; of layer b, rank 1's means are "
        f"{off} standard deviations from rank 0's",
    )


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("leading", [True, False])
@pytest.mark.parametrize("other", [{}, {"b": norm(3)}])
def test_ranks_with_other_layers_are_said_and_training_goes_on(
    leading: bool, other: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = {"a": norm(), "b": norm()}, {"a": norm(mean=1.0)} | other
    leads, _ = ranks_with(monkeypatch, *((one, two) if leading else (two, one)))
    found = leads.differ()
    assert found is not None
    layers, evidence = found
    assert layers == ["b", "a"]
    assert "layer b is not in those of rank 0 and of rank 1, or not with as many" in evidence


class Runs:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("how", ["pickled", "within an array"])
def test_what_is_in_the_store_is_never_run(
    how: str, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads, _ = ranks_with(monkeypatch, {"a": norm()}, {"a": norm(mean=1.0)})
    bad = Runs(tmp_path / "run")
    store.set(POSTED, pickle.dumps(bad) if how == "pickled" else archive(np.array([bad], object)))
    assert leads.differ() == (["a"], "rank 1's statistics could not be read")
    assert not bad.file.exists()


def archive(*arrays: Any) -> bytes:
    written = BytesIO()
    np.savez(written, *arrays)
    return written.getvalue()


def test_bytes_that_no_rank_has_posted_are_said_not_to_be_read(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = {"a": norm()}, {"a": norm(mean=1.0)}
    leads, _ = ranks_with(monkeypatch, *layers)
    whole = store.get(POSTED)
    assert leads.differ() is not None
    damaged = [
        whole[:-1], whole[:40], whole[40:], whole.replace(b"arr_1", b"arr_0"), b"", b"PK",
        archive(), archive(3.0), archive(["a"], ["b"], ["c"]), archive(["a"], [0.0] * 4),
        *(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in range(len(whole) - 99)),
    ]  # fmt: skip
    unread = (["a"], "rank 1's statistics could not be read")
    for number, each in enumerate(damaged):
        leads.due(3)
        leads.post()
        store.set(POSTED, each)
        found = leads.differ()  # does not raise; a byte that says nothing may be any
        assert found == unread or number >= 3, number
