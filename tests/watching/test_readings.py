"""What is measured while a loop trains: the figures, where they go, and that nothing else moves."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from contextlib import nullcontext
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

import bnbench
from bnbench import cli
from bnbench.errors import BnbenchError, DataError, UsageError
from bnbench.events import Evaluation
from bnbench.sinks.metrics import to_moments
from bnbench.store import lines
from bnbench.watching import readings
from tests.watching.loops import NORMS, Net, backward, data, epoch, network, optimizer, step

Logged = dict[str, dict[int, float]]


def logged() -> tuple[Logged, Callable[[str, float, int], None]]:
    found: Logged = {}
    return found, lambda tag, value, at: found.setdefault(tag, {}).update({at: value})


def by_hand(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """By torch alone, in fp64: all examples are one batch."""
    model, x = copy.deepcopy(model).double(), x.double()
    errors: dict[str, float] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(norm: Any, args: tuple[Tensor]) -> None:
            mean = args[0].mean((0, 2, 3))
            width = args[0].var((0, 2, 3), correction=0) + norm.eps
            away = (norm.running_mean - mean).abs() / width.sqrt()
            ratio = ((norm.running_var + norm.eps) / width).log().abs()
            errors[f"probe_running_error/{name}/mean"] = away.mean().item()
            errors[f"probe_running_error/{name}/variance"] = ratio.mean().item()

        return hook

    found: dict[str, float] = {}
    with torch.no_grad():
        for mode in ("running", "batch"):
            model.train(mode == "batch")
            hooks = [model.get_submodule(n).register_forward_pre_hook(look(n)) for n in NORMS]
            for each in hooks if mode == "running" else ():
                each.remove()
            output = model(x)
            found[f"loss/val_{mode}"] = F.cross_entropy(output, y).item()
            found[f"accuracy/val_{mode}"] = (output.argmax(1) == y).double().mean().item()
    for what in ("loss", "accuracy"):
        found[f"gap/val_{what}"] = found[f"{what}/val_running"] - found[f"{what}/val_batch"]
    return found | errors


def test_the_figures_are_those_of_torch() -> None:
    model = network()
    by, (found, log) = optimizer(model), logged()
    x, y = (torch.cat(parts) for parts in zip(*data(), strict=True))
    with bnbench.watch(model, val=data(), every=3, log=log, folder=None):
        for _ in range(4):
            step(model, by, x, y)
        expected = by_hand(model, x, y)
    assert {at for values in found.values() for at in values} == {3, 4}
    for tag, value in expected.items():
        assert found[tag][4] == pytest.approx(value, rel=1e-4, abs=1e-5), tag
    assert found["probe_running_error/neck.1/mean"][4] > 0.1, "running statistics lag behind"


def everything(model: nn.Module, by: torch.optim.Optimizer) -> list[Any]:
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    tensors += [v for each in by.state.values() for v in each.values() if isinstance(v, Tensor)]
    kept: list[Any] = [None if each is None else each.clone() for each in tensors]
    return [kept, torch.get_rng_state(), random.getstate(), np.random.rand()]


def trained(val: Any, **how: Any) -> list[Any]:
    """Dropout, shuffled batches, and augmentation by every generator that there is."""
    model = network(dropout=0.5)
    by, batches = optimizer(model), data(shuffle=True)
    random.seed(3)
    np.random.seed(3)
    with bnbench.watch(model, val=val, folder=None, **how) if how else nullcontext():
        for _ in range(5):
            for x, y in batches:
                noise = torch.randn_like(x) * random.random() + float(np.random.rand())
                step(model, by, x + noise, y)
    return everything(model, by)


def same(one: list[Any], other: list[Any]) -> bool:
    equal = all(map(torch.equal, one[0], other[0])) and torch.equal(one[1], other[1])
    return equal and one[2:] == other[2:]


@pytest.mark.filterwarnings("ignore:bnbench.watch, step 20. in eval mode")
def test_what_is_trained_stays_the_same_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, val = trained(None), data(shuffle=True)
    assert same(trained(None), alone)
    assert same(trained(val, every=3, train=data(shuffle=True)), alone)
    assert same(trained(lambda model: model(torch.randn(8, 3, 8, 8)).sum(), every=3), alone)
    monkeypatch.setattr(readings, "untouched", lambda *_: nullcontext())
    assert not same(trained(val, every=3), alone), "the random numbers of a loader are seen"


def test_a_summary_writer_and_the_files_have_all_of_it(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = network()
    by = optimizer(model)
    writer = SummaryWriter(tmp_path / "board")
    how: dict[str, Any] = {"folder": tmp_path, "setup": "a/b", "seed": 7}
    with bnbench.watch(model, val=data(), every=4, log=writer, **how) as watching:
        epoch(model, by)
        model.eval()
        with pytest.warns(UserWarning, match="frozen"):
            epoch(model, by)
    writer.close()
    assert watching.path == tmp_path / "a-b-seed7"
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [each.step for each in board.Scalars("gap/val_accuracy")] == [4, 8]
    assert [(each.step, each.value) for each in board.Scalars("finding/frozen")] == [(5, 2)]

    records = list(lines.events(watching.path / "metrics.jsonl"))
    moments = list(to_moments(records))
    assert [moment.step for moment in moments] == [4, 5, 8]
    assert [moment.examples for moment in moments] == [64, 64, 64], "of passes in train()"
    running = [
        each for each in records if (each["event"], each.get("stats")) == ("eval", "running")
    ]
    shown = board.Scalars("loss/val_running")
    assert [each["loss"] for each in running] == pytest.approx([each.value for each in shown])

    (row,) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert (row["setup"], row["seed"], row["state"], row["steps"]) == ("a/b", 7, "completed", 8)
    assert row["val/running/loss"] == running[-1]["loss"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two setups, six seeds."""
    for seed in range(6):
        for setup, momentum in (("slow", 0.001), ("quick", 0.5)):
            torch.manual_seed(seed)
            model = Net()
            for name in NORMS:
                model.get_submodule(name).momentum = momentum  # type: ignore[assignment]
            by = optimizer(model)
            worse = pytest.warns(UserWarning, match="step 20: in eval mode .* of the val examples")
            said = worse if setup == "slow" else nullcontext()
            with said, bnbench.watch(model, val=data(), folder=tmp_path, setup=setup, seed=seed):
                for _ in range(5):
                    epoch(model, by)
    return tmp_path / "results.jsonl"


def test_runs_are_judged_as_pairs(study: Path) -> None:
    asked = ["--metric", "probe/running_error/variance", "--better", "slow", "--worse", "quick"]
    result = CliRunner().invoke(cli.app, ["verdict", str(study), *asked])
    assert result.exit_code == 0, result.output
    assert "6 seeds" in result.output
    assert "✓ supported" in result.output


@pytest.mark.parametrize("split", ["train", "val"])
def test_harm_is_what_population_statistics_would_give_back(split: Any) -> None:
    def reading(running: float, population: float) -> list[Evaluation]:
        kinds: Any = {"running": running, "batch": 1.0, "population": population}
        return [
            Evaluation(split=split, stats=stats, images=64, loss=1.0, accuracy=accuracy)
            for stats, accuracy in kinds.items()
        ]

    said = readings.harm(reading(0.5, 0.75))
    assert said is not None
    assert said.startswith(f"in eval mode 50.0% of the {split} examples are right, with population")
    for healthy in (reading(0.75, 0.5), reading(0.5, 0.62), reading(nan, nan), []):
        assert readings.harm(healthy) is None


def test_a_run_that_stops_has_its_state(tmp_path: Path) -> None:
    for kind in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(kind), bnbench.watch(network(), folder=tmp_path):
            raise kind
    rows = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert [row["state"] for row in rows] == ["interrupted", "failed"]
    assert {each.name for each in tmp_path.iterdir()} == {"Net", "Net-2", "results.jsonl"}


def test_an_evaluation_of_the_users_own() -> None:
    model = network()
    by, (found, log) = optimizer(model), logged()
    x, y = (torch.cat(parts) for parts in zip(*data(), strict=True))

    def evaluate(model: nn.Module) -> dict[str, Any]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"loss": F.cross_entropy(model(x), y), "classes": 4, "note": "no number"}

    with bnbench.watch(model, val=evaluate, every=3, log=log, folder=None):
        for _ in range(3):
            step(model, by, x, y)
        expected = by_hand(model, x, y)
    for which in ("running", "batch"):
        assert found[f"probe_val/{which}/loss"][3] == pytest.approx(
            expected[f"loss/val_{which}"], rel=1e-4
        )
    assert found["probe_val/gap/loss"][3] == pytest.approx(expected["gap/val_loss"], abs=1e-4)
    error = "probe_running_error/neck.1/variance"
    assert found[error][3] == pytest.approx(expected[error], rel=1e-3)
    assert model.training


def test_batches_as_dicts_and_a_training_loader() -> None:
    val, train = ([{"x": x, "labels": y} for x, y in data(size=size)] for size in (16, 32))
    model = network()
    by, (found, log) = optimizer(model), logged()
    with bnbench.watch(model, val=val, train=train, every=4, log=log, folder=None):
        epoch(model, by)
    assert {"gap/val_accuracy", "gap/train_accuracy"} <= found.keys()
    assert found["loss/val_population"][4] == pytest.approx(found["loss/train_population"][4])


def test_readings_are_in_the_precision_of_training() -> None:
    model, seen = network(), set[torch.dtype]()
    model.neck.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    by, (found, log) = optimizer(model), logged()
    with bnbench.watch(model, val=data(), every=4, log=log, folder=None):
        assert seen == {torch.float32}, "nothing was trained yet"
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            for x, y in data():
                loss = F.cross_entropy(model(x), y)
                by.zero_grad()
                backward(loss)
                with torch.autocast("cpu", enabled=False):
                    by.step()
    assert seen == {torch.bfloat16}
    assert 4 in found["gap/val_loss"]


def test_without_labels_distances_are_a_share_of_the_outputs_variance() -> None:
    x = torch.cat([each for each, _ in data()])
    found = []
    for scale in (1.0, 100.0):
        model, (values, log) = network(), logged()
        model.head[-1].weight.data.mul_(scale)  # type: ignore[operator]
        model.head[-1].bias.data.mul_(scale)  # type: ignore[operator]
        by = torch.optim.SGD(model.parameters(), 0.0)
        with bnbench.watch(model, val=[x], every=1, log=log, folder=None):
            step(model, by, x, torch.zeros(len(x), dtype=torch.long))
        found.append(values["loss/val_running"][1])
    assert found[0] > 0.01
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_network_without_such_layers_has_a_gap_of_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 4))
    by, (found, log) = optimizer(model), logged()
    with bnbench.watch(model, val=data(), every=2, log=log, folder=None) as watching:
        epoch(model, by)
    assert found["gap/val_loss"] == found["gap/val_accuracy"] == {2: 0.0, 4: 0.0}
    assert watching.findings == []


# --- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ({"val": []}, DataError, "the val loader gave no batch"),
        ({"val": 3}, UsageError, "val is int\n  give a loader or a dataset, or a function"),
        ({"train": 3}, UsageError, "train is int\n  give a loader or a dataset$"),
        ({"val": [torch.randn(4, 5)]}, UsageError, "raised RuntimeError"),
        ({"every": 0}, UsageError, "every is 1 or more"),
        ({"log": 3}, UsageError, "log is int"),
    ],
)
def test_what_cannot_be_watched_is_refused_at_once(
    how: dict[str, Any], kind: type[BnbenchError], text: str
) -> None:
    with pytest.raises(kind, match=text), bnbench.watch(network(), folder=None, **how):
        pytest.fail("not entered")


def test_sharded_parameters_are_refused() -> None:
    class FSDPModule(nn.Module):
        pass

    with pytest.raises(UsageError, match="sharded"):
        bnbench.watch(nn.Sequential(FSDPModule()))


def test_what_fails_later_is_a_warning_and_training_goes_on(tmp_path: Path) -> None:
    def log(tag: str, value: float, step: int) -> None:  # noqa: ARG001
        raise OSError("no logger")

    def evaluate(model: nn.Module) -> float:
        raise ArithmeticError(f"not {type(model).__name__}")

    model = network()
    by = optimizer(model)
    with (
        bnbench.watch(model, val=evaluate, every=2, folder=None),
        pytest.warns(UserWarning, match=r"val\(\) raised ArithmeticError: not Net: the model"),
    ):
        epoch(model, by)
    with (
        bnbench.watch(model, val=data(), every=2, log=log, folder=tmp_path) as watching,
        pytest.warns(UserWarning, match=r"log= failed and is left out \(no logger\)"),
    ):
        epoch(model, by)
    assert watching.path is not None
    assert len(list(to_moments(lines.events(watching.path / "metrics.jsonl")))) == 2


def test_workers_of_a_loader_are_the_users_own() -> None:
    dataset = data().dataset
    val = DataLoader(dataset, 16, num_workers=1)
    model = network()
    by, (found, log) = optimizer(model), logged()
    with bnbench.watch(model, val=val, every=4, log=log, folder=None):
        epoch(model, by)
    assert 4 in found["gap/val_loss"]
