"""Checkpoints as people save them: read, refused in a sentence, fixed in nothing else."""

from __future__ import annotations

import io
import os
import struct
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals, safe_globals

import bnbench
from bnbench.assemble import checkpoints
from bnbench.diagnosis import Diagnosis
from bnbench.diagnosis.evidence import SavedModel, Target
from bnbench.diagnosis.target import (
    load,
    of_model,
    put_into,
    read_checkpoint,
    recalibrate,
)
from bnbench.errors import StorageError, UsageError
from tests.diagnosis.patients import IMAGES, eval_loader, loader, network, trained


def spoiled() -> nn.Module:
    """Running statistics as if from far away."""
    model = trained()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.mul_(3).add_(0.2)
    return model


@cache
def diagnosis() -> Diagnosis:
    return bnbench.diagnose(spoiled(), loader(), eval_loader(), images=IMAGES)


State = dict[str, Tensor]
CONTAINERS: dict[str, tuple[Callable[[State], Any], Callable[[Any], State]]] = {
    "state dict": (lambda state: state, lambda content: content),
    "ordered": (lambda state: OrderedDict(state), lambda content: content),
    "state_dict": (lambda state: {"state_dict": state, "epoch": 3}, lambda c: c["state_dict"]),
    "model": (
        lambda state: {"epoch": 3, "model": state, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda content: content["model"],
    ),
    "model_state_dict": (
        lambda state: {"model_state_dict": state, "best": 0.8},
        lambda content: content["model_state_dict"],
    ),
    "of a script": (
        lambda state: {
            "net": state,
            "args": Namespace(lr=0.1, out=Path("out"), name="a", more=SimpleNamespace(a=1)),
            "at": datetime(2026, 1, 2),
            "best": np.float64(0.8),
            "random": np.random.RandomState(0).get_state(),
            "optimizer": {"state": {0: torch.ones(2)}},
        },
        lambda content: content["net"],
    ),
}
PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "model.", "module.model.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_only_running_statistics_change(container: str, prefix: str, tmp_path: Path) -> None:
    put, take = CONTAINERS[container]
    path = tmp_path / "saved.pt"
    state = {f"{prefix}{key}": value for key, value in spoiled().state_dict().items()}
    torch.save(put(state), path)

    model = network(seed=5)
    checkpoint = read_checkpoint(path)
    assert put_into(model, checkpoint) == ()
    for key, value in spoiled().state_dict().items():
        assert torch.equal(model.state_dict()[key], value)

    content = io.BytesIO(recalibrate(checkpoint, model, diagnosis()))
    with safe_globals(checkpoints.PLAIN):
        fixed, before = (torch.load(each, weights_only=True) for each in (content, path))
    assert type(fixed) is type(before)
    assert list(take(fixed)) == list(take(before))
    for key, value in take(before).items():
        now = take(fixed)[key]
        assert now.dtype == value.dtype
        if key.endswith(("running_mean", "running_var")):
            assert not torch.equal(now, value)
        else:
            assert now.numpy().tobytes() == value.numpy().tobytes()
    if container != "state dict" and container != "ordered":
        rest = {key: value for key, value in fixed.items() if take(fixed) is not value}
        assert str(rest) == str({k: v for k, v in before.items() if take(before) is not v})


def test_a_fixed_checkpoint_restores_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "saved.pt"
    torch.save(spoiled().state_dict(), path)
    model = network(seed=5)
    (tmp_path / "fixed.pt").write_bytes(recalibrate(read_checkpoint(path), model, diagnosis()))
    put_into(model, read_checkpoint(tmp_path / "fixed.pt"))
    found = bnbench.diagnose(model, loader(), eval_loader(), images=IMAGES)
    healthy = bnbench.diagnose(trained(), loader(), eval_loader(), images=IMAGES)
    before = diagnosis().reading("running", "eval").accuracy
    after = found.reading("running", "eval").accuracy
    assert before is not None
    assert before < 0.7
    assert after == pytest.approx(healthy.reading("running", "eval").accuracy, abs=0.01)
    assert found.healthy


def test_without_a_checkpoint_it_is_the_models_own_state() -> None:
    model = spoiled()
    content = recalibrate(of_model(model), model, diagnosis())
    fixed = torch.load(io.BytesIO(content), weights_only=True)
    assert list(fixed) == list(model.state_dict())
    assert torch.equal(fixed["10.bias"], model.state_dict()["10.bias"])
    assert not torch.equal(fixed["1.running_var"], model.state_dict()["1.running_var"])


@pytest.mark.parametrize("of_file", [False, True])
def test_the_layers_of_a_wrapped_model_are_found_in_the_file(of_file: bool) -> None:
    """`DataParallel` names them with `module.`, in the diagnosis, too."""
    model = nn.DataParallel(spoiled())
    state = dict(spoiled().state_dict())
    checkpoint = SavedModel("saved.pt", state, state) if of_file else of_model(model)
    found = bnbench.diagnose(model, loader(), images=IMAGES)
    fixed = torch.load(io.BytesIO(recalibrate(checkpoint, model, found)), weights_only=True)
    put_into(model, SavedModel("fixed.pt", fixed, fixed))
    assert bnbench.diagnose(model, loader(), images=IMAGES).healthy


def test_a_model_without_state_has_no_use_for_a_checkpoint() -> None:
    state = dict(trained().state_dict())
    with pytest.raises(UsageError, match="20 unexpected"):
        put_into(nn.Flatten(), SavedModel("saved.pt", state, state))


def test_parameters_alone_are_loaded_and_named(tmp_path: Path) -> None:
    """A classic: only the parameters were saved."""
    path = tmp_path / "saved.pt"
    torch.save({f"module.{k}": v.detach() for k, v in trained().named_parameters()}, path)
    model = network(seed=5)
    checkpoint = read_checkpoint(path)
    assert put_into(model, checkpoint) == ("1", "4", "7")
    found = bnbench.diagnose(model, loader(), eval_loader(), images=IMAGES)
    assert found.findings[0].name == "never-updated"
    fixed = torch.load(io.BytesIO(recalibrate(checkpoint, model, found)), weights_only=True)
    assert {"module.1.running_mean", "module.7.running_var"} <= set(fixed)


@dataclass
class Settings:
    """Something that is no tensor."""

    lr: float = 0.1


def write(path: Path, content: Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


UNREADABLE: dict[str, tuple[Any, str]] = {
    "text": (b"weights", "is not a checkpoint of PyTorch"),
    "empty": (b"", "is not a checkpoint of PyTorch"),
    "an object": ({"model": {"a": torch.ones(1)}, "args": Settings()}, "holds more than tensors ("),
    "a list": ([torch.ones(1)], "holds no state dict"),
    "two": ({key: {"a": torch.ones(1)} for key in "GD"}, "holds 2 state dicts (G, D)"),
    "safetensors": (struct.pack("<Q", 2) + b'{"a":{}}', "is a file of safetensors"),
    "no state": ({"epoch": 3, "loss": [1.0]}, "holds no state dict"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read(case: str, tmp_path: Path) -> None:
    content, sentence = UNREADABLE[case]
    with pytest.raises(StorageError) as caught:
        read_checkpoint(write(tmp_path / "saved.pt", content))
    assert sentence in str(caught.value)
    assert caught.value.do


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "saved.pt", trained().state_dict())
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(StorageError, match="not a checkpoint of PyTorch, or damaged"):
        read_checkpoint(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        read_checkpoint(tmp_path / "none.pt")


def without(key: str) -> dict[str, Tensor]:
    return {k: v for k, v in trained().state_dict().items() if k != key}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (without("3.weight"), "1 missing (3.weight)"),
        ({**trained().state_dict(), "head.bias": torch.ones(2)}, "1 unexpected (head.bias)"),
        (
            {**trained().state_dict(), "3.weight": torch.ones(2, 2)},
            "3.weight is 2×2 in it, and 16×8×3×3 in the network",
        ),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_another_models_checkpoint(state: dict[str, Tensor], sentence: str, tmp_path: Path) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        put_into(model, read_checkpoint(write(tmp_path / "saved.pt", state)))
    assert sentence in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_a_part_leaves_over_is_said(tmp_path: Path) -> None:
    backbone = {f"backbone.{k}": v for k, v in spoiled().state_dict().items()}
    path = write(tmp_path / "last.pt", {**backbone, "head.weight": torch.ones(2)})
    target, saved = Target(network(seed=5), []), read_checkpoint(path)
    load(target, saved)
    said = f"of {path} only backbone.* is used; 1 other entry is not (head.weight)"
    assert target.notes == [said]
    fixed = torch.load(io.BytesIO(recalibrate(saved, target.model, diagnosis())))
    assert torch.equal(fixed["head.weight"], torch.ones(2))
    write(path, backbone)
    load(other := Target(network(seed=5), []), read_checkpoint(path))
    assert other.notes == []
    write(path, {f"{of}.{k}": v for of in "ab" for k, v in spoiled().state_dict().items()})
    with pytest.raises(StorageError, match=r"2 parts of it fit: a\.\*, b\.\*"):
        put_into(network(), read_checkpoint(path))


@pytest.fixture
def _allowed() -> Iterator[None]:
    """What torch takes, as it was afterwards."""
    before = get_safe_globals()
    yield
    clear_safe_globals()
    add_safe_globals(before)


@pytest.mark.usefixtures("_allowed")
def test_what_the_user_has_allowed_stays_so(tmp_path: Path) -> None:
    add_safe_globals([Namespace, Settings])
    before = {*get_safe_globals()}
    state = trained().state_dict()
    path = write(tmp_path / "a.pt", {"model": state, "args": Namespace(a=Settings())})
    assert read_checkpoint(path).content["args"].a == Settings()
    assert {*get_safe_globals()} == before


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("numpy._core.multiarray", "numpy.core.multiarray"), ("pathlib", "pathlib._local")],
)
def test_other_versions_names_are_known(ours: str, theirs: str, tmp_path: Path) -> None:
    """NumPy 1, Python 3.13; in torch's older format, which has no checksums."""
    content = {"model": trained().state_dict(), "best": np.float64(0.8), "out": Path("out")}
    torch.save(content, path := tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    saved = path.read_bytes()
    assert saved.count(f"c{ours}\n".encode()) == 1
    path.write_bytes(saved.replace(f"c{ours}\n".encode(), f"c{theirs}\n".encode()))
    found = read_checkpoint(path).content
    assert (found["best"], found["out"]) == (0.8, Path("out"))


class Evil:
    """Makes a folder where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "hidden", [lambda evil: Namespace(a=evil), lambda evil: np.array([evil], dtype=object)]
)
def test_what_is_allowed_hides_nothing_else(hidden: Callable[[Evil], Any], tmp_path: Path) -> None:
    content = {"model": trained().state_dict(), "args": hidden(Evil(tmp_path / "made"))}
    with pytest.raises(StorageError, match=r"holds more than tensors|not a checkpoint"):
        read_checkpoint(write(tmp_path / "a.pt", content))
    assert not (tmp_path / "made").exists()


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.do == "name a file in it with --checkpoint FILE"
