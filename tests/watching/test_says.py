"""What is said while a loop trains: each fault its name, and nothing of a healthy loop."""

from __future__ import annotations

import copy
import linecache
import pickle
import re
import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

import bnbench
from bnbench.catalogue import FINDINGS
from tests.watching.faults import FAULTS
from tests.watching.healthy import HEALTHY, Loop
from tests.watching.loops import Net, backward, by_hand, data, epoch, network, optimizer, step


def said(loop: Loop) -> set[tuple[str, int, int]]:
    """Findings with their layers and steps, and how often each was warned of: once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with bnbench.watch(network(), every=20, folder=None) as watching:
            loop(watching.network.network)  # type: ignore[arg-type]
    warned = [each for each in caught if "the weights change" not in str(each.message)]
    steps = []
    for each, found in zip(warned, watching.findings, strict=True):
        text = str(each.message)
        assert f"{found.name}: {found.evidence}" in text
        assert f"explain findings {found.name}" in text
        assert found.name in FINDINGS
        steps += re.findall(r"^bnbench.watch, step (\d+):", text)
    assert all(each.filename.startswith(__file__[:-12]) for each in warned), "at the user's line"
    layers = Counter((each.name, layer) for each in watching.findings for layer in each.layers)
    assert not layers or max(layers.values()) == 1
    return {
        (each.name, len(each.layers), int(step))
        for each, step in zip(watching.findings, steps, strict=True)
    }


@pytest.mark.parametrize("name", HEALTHY)
def test_of_a_healthy_loop_nothing_is_said(name: str) -> None:
    assert said(HEALTHY[name]) == set()


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_once_with_its_layers(name: str) -> None:
    loop, names = FAULTS[name]
    assert said(loop) == names


def test_it_is_said_at_the_step() -> None:
    model = network()
    by = optimizer(model)
    with bnbench.watch(model, folder=None) as watching:
        for _ in range(10):
            epoch(model, by)
        model.eval()
        x, y = next(iter(data()))
        with pytest.warns(UserWarning, match=r"step 41: frozen: 2 layers \(backbone.1, neck.1\)"):
            step(model, by, x, y)
        model.train()
        with pytest.warns(UserWarning, match=r"small-last-batch"):
            step(model, by, x[:1], y[:1])
    assert [each.name for each in watching.findings] == ["frozen", "small-last-batch"]


def test_a_batch_that_torch_refuses_is_named_and_the_error_passes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4))
    by = optimizer(model)

    def train() -> None:
        with bnbench.watch(model, folder=None):
            for x, y in data(examples=17):
                step(model, by, x, y)

    refused = pytest.raises(ValueError, match="more than 1 value per channel")
    with pytest.warns(UserWarning, match="small-last-batch"), refused:
        train()


def hooks(model: nn.Module) -> int:
    return sum(
        len(table)
        for module in model.modules()
        for name, table in vars(module).items()
        if name.endswith("_hooks")
    ) + len(_global_optimizer_post_hooks)


@pytest.mark.parametrize("after", [0, 1, 30])
def test_hooks_are_gone_at_the_end_and_errors_pass(after: int) -> None:
    model, before = network(), hooks(network())
    by, error = optimizer(model), RuntimeError()

    def train() -> None:
        with bnbench.watch(model, folder=None):
            for number, (x, y) in enumerate(batch for _ in range(10) for batch in data()):
                if number == after:
                    raise error
                step(model, by, x, y)

    with pytest.raises(RuntimeError) as raised:
        train()
    assert raised.value is error
    assert hooks(model) == before
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_inside_another_one() -> None:
    model = network()
    by = optimizer(model)
    with bnbench.watch(model, val=data(), every=3, folder=None) as outer:
        with bnbench.watch(model.neck, every=2, folder=None) as inner:
            epoch(model, by)
        epoch(model, by)
    assert (outer.step, inner.step) == (8, 4)
    assert outer.findings == inner.findings == []


def test_a_network_that_is_watched_can_be_pickled() -> None:
    model = network()
    by = optimizer(model)
    with bnbench.watch(model, folder=None):
        epoch(model, by)
        copied: Net = pickle.loads(pickle.dumps(model))
        copied(next(iter(data()))[0])
    again: Net = pickle.loads(pickle.dumps(copied))
    assert all(map(torch.equal, again.state_dict().values(), copied.state_dict().values()))


def test_which_steps_count() -> None:
    model, other = network(), network()
    ours, theirs = optimizer(model), optimizer(other)
    head = torch.optim.SGD(model.head.parameters(), 0.01)
    with bnbench.watch(model, folder=None) as watching:
        for x, y in data():
            step(other, theirs, x, y)
            step(model, ours, x, y)
            head.step()
    assert watching.step == 4


def test_an_optimizer_that_takes_over_counts_on() -> None:
    model = network()
    with bnbench.watch(model, folder=None) as watching:
        epoch(model, optimizer(model))
        by = optimizer(model)
        epoch(model, by)
        model.eval()
        with pytest.warns(UserWarning, match="step 9: frozen"):
            epoch(model, by)
    assert watching.step == 12


@pytest.mark.parametrize("how", ["weight.data", "weight"])
def test_without_an_optimizer_of_torch_changes_of_weights_count(how: str) -> None:
    model, steps = network(), list[int]()

    def train() -> None:
        for x, y in (batch for _ in range(3) for batch in data()):
            for part in (x[::2], x[1::2]):
                backward(torch.nn.functional.cross_entropy(model(part), y[::2]))
            if how == "weight.data":
                by_hand(model)
            else:
                with torch.no_grad():
                    for each in model.parameters():
                        each.sub_(0.1 * each.grad)  # type: ignore[operator]
                        each.grad = None
            model.eval()
            with torch.no_grad():
                model(x)
            model.train()

    log = lambda tag, value, step: steps.append(step)  # noqa: E731, ARG005
    with (
        warnings.catch_warnings(record=True) as caught,
        bnbench.watch(model, val=data(), every=5, log=log, folder=None) as watching,
    ):
        warnings.simplefilter("always")
        train()
    texts = [str(each.message) for each in caught]
    assert "a step is each call of the model that finds head.3.bias changed" in texts[0]
    assert "step 2: micro-batches: 2 backward passes make one optimizer step" in texts[1]
    assert len(texts) == 2
    assert sorted({*steps}) == [2, 5, 10, 12]
    assert watching.step == 12


def test_where_no_step_can_be_seen_that_is_said() -> None:
    model = network()
    copied = copy.deepcopy(model)
    by = optimizer(copied)

    def train() -> None:
        with bnbench.watch(model, val=data(), folder=None):
            for x, y in data():
                backward(torch.nn.functional.cross_entropy(model(x), y))
                by.step()

    with pytest.warns(UserWarning, match=r"no step was seen.* head.3.bias is what it was"):
        train()


def test_it_is_said_at_the_line_of_the_pass() -> None:
    model = network()
    by = optimizer(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with bnbench.watch(model, folder=None):
            for _ in range(2):
                epoch(model, by)
            with torch.no_grad():
                model(next(iter(data()))[0])  # here
            epoch(model, by)
    (warned,) = caught
    assert (warned.filename, linecache.getline(warned.filename, warned.lineno).split()[-1]) == (
        __file__,
        "here",
    )
