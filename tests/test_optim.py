"""Parameter groups, schedules and updates against numbers worked out by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from bnbench import optim
from bnbench.models.plain import Plain
from bnbench.models.recipe import Recipe
from bnbench.norms.batch import BatchNorm
from tests.processes import completed


def network() -> nn.Module:
    recipe = Recipe(BatchNorm, nn.ReLU, "after")  # has filters, their biases, γ and β
    return Plain(in_channels=1, classes=2, widths=(2, 3), blocks=1, recipe=recipe)


def names(model: nn.Module, groups: list[dict[str, Any]]) -> list[tuple[set[str], float]]:
    by_identity = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        ({by_identity[id(parameter)] for parameter in group["params"]}, group["weight_decay"])
        for group in groups
    ]


def test_only_filters_and_matrices_decay() -> None:
    model = network()
    groups = optim.parameter_groups(model, weight_decay=0.5, decay_norm_and_bias=False)
    decayed = {"stage1.block1.conv.weight", "stage2.block1.conv.weight", "head.weight"}
    free = {
        "stage1.block1.conv.bias",
        "stage1.block1.norm.weight",
        "stage1.block1.norm.bias",
        "stage2.block1.conv.bias",
        "stage2.block1.norm.weight",
        "stage2.block1.norm.bias",
        "head.bias",
    }
    assert names(model, groups) == [(decayed, 0.5), (free, 0.0)]
    assert sum(len(group["params"]) for group in groups) == 10  # type: ignore[arg-type, misc]


def test_everything_decays_where_asked() -> None:
    model = network()
    groups = optim.parameter_groups(model, weight_decay=0.5, decay_norm_and_bias=True)
    assert names(model, groups) == [({name for name, _ in model.named_parameters()}, 0.5)]


def test_weights_without_biases_are_one_group() -> None:
    groups = optim.parameter_groups(
        nn.Linear(2, 2, bias=False), weight_decay=0.1, decay_norm_and_bias=False
    )
    assert [group["weight_decay"] for group in groups] == [0.1]


@pytest.mark.parametrize(
    ("rule", "batch_size", "expected"),
    [
        ("none", 256, 0.1),
        ("linear", 256, 0.4),
        ("linear", 2, 0.003125),
        ("linear", 64, 0.1),
        ("sqrt", 256, 0.2),
        ("sqrt", 16, 0.05),
        ("sqrt", 64, 0.1),
    ],
)
def test_rules_scale_the_rate(
    rule: Literal["none", "sqrt", "linear"], batch_size: int, expected: float
) -> None:
    found = optim.scaled_lr(0.1, rule=rule, batch_size=batch_size, base_batch_size=64)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("warmup", "total", "expected"),
    [
        (0.0, 100, 0),
        (0.05, 100, 5),
        (0.05, 101, 6),
        (0.001, 10, 1),
        # As products of doubles these lie just above a whole number.
        (0.07, 100, 7),
        (0.07, 200, 14),
        (0.1, 30, 3),
    ],
)
def test_a_warmup_is_rounded_up_to_whole_steps(warmup: float, total: int, expected: int) -> None:
    assert optim.warmup_steps(warmup, total) == expected


def step_schedule(peak: float, *, total_steps: int, warmup: float) -> optim.LearningRate:
    return optim.stepwise(
        peak, total_steps=total_steps, warmup=warmup, milestones=(0.75, 0.5), decay=0.1
    )


SCHEDULES = [optim.constant, optim.cosine, step_schedule]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_rises_in_equal_steps_to_the_peak(
    schedule: Callable[..., optim.LearningRate],
) -> None:
    rate = schedule(2.0, total_steps=40, warmup=0.1)
    assert [rate(step) for step in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rate(4) == pytest.approx(2.0)  # the course after it starts at the peak


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_warmup_the_first_step_is_at_the_peak(
    schedule: Callable[..., optim.LearningRate],
) -> None:
    assert schedule(2.0, total_steps=40, warmup=0.0)(0) == pytest.approx(2.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
def test_every_rate_of_a_budget_is_positive_and_at_most_the_peak(
    schedule: Callable[..., optim.LearningRate], total: int, warmup: float
) -> None:
    rate = schedule(2.0, total_steps=total, warmup=warmup)
    rates = [rate(step) for step in range(total)]
    assert all(0 < value <= 2.0 for value in rates)
    assert max(rates) == pytest.approx(2.0)


def test_constant_stays() -> None:
    rate = optim.constant(0.3, total_steps=100, warmup=0.1)
    assert {rate(step) for step in range(9, 100)} == {0.3}


def test_cosine_at_its_quarters() -> None:
    rate = optim.cosine(1.0, total_steps=100, warmup=0.0)
    assert rate(25) == pytest.approx((1 + sqrt(0.5)) / 2)
    assert rate(50) == pytest.approx(0.5)
    assert rate(75) == pytest.approx((1 - sqrt(0.5)) / 2)
    assert rate(99) == pytest.approx(0.000246720, rel=1e-5)  # (1 + cos 178.2°) / 2
    # With a fifth of warm-up, half-way is half-way through the other four.
    assert optim.cosine(1.0, total_steps=100, warmup=0.2)(60) == pytest.approx(0.5)


def test_milestones_drop_the_rate_at_fractions_of_the_budget() -> None:
    rate = step_schedule(1.0, total_steps=100, warmup=0.1)
    points = {10: 1.0, 49: 1.0, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01}
    assert {step: rate(step) for step in points} == pytest.approx(points)
    at_the_end = optim.stepwise(1.0, total_steps=10, warmup=0.0, milestones=(1.0,), decay=0.1)
    assert at_the_end(9) == 1.0
    twice = optim.stepwise(1.0, total_steps=10, warmup=0.0, milestones=(0.5, 0.5), decay=0.1)
    assert twice(5) == pytest.approx(0.01)


def updates(
    make: Callable[[list[dict[str, object]]], torch.optim.Optimizer],
    *,
    start: float,
    weight_decay: float,
    steps: list[tuple[float, float]],
) -> list[float]:
    """The weight after each (gradient, learning rate), in fp64."""
    weight = nn.Parameter(torch.tensor([[start]], dtype=torch.float64))
    optimizer = make([{"params": [weight], "weight_decay": weight_decay}])
    values = []
    for gradient, lr in steps:
        weight.grad = torch.tensor([[gradient]], dtype=torch.float64)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        values.append(weight.item())
    return values


def test_sgd_by_hand() -> None:
    """Velocity outside the rate, decay as part of the gradient.

    Step 1: g = 0.5 + 0.1·1 = 0.6, v = 0.6, w = 1 − 0.1·0.6 = 0.94. Step 2, at twice the rate:
    g = 0.5 + 0.1·0.94 = 0.594, v = 0.9·0.6 + 0.594 = 1.134, w = 0.94 − 0.2·1.134 = 0.7132.
    """
    found = updates(
        lambda groups: optim.sgd(groups, momentum=0.9),
        start=1.0,
        weight_decay=0.1,
        steps=[(0.5, 0.1), (0.5, 0.2)],
    )
    assert found == pytest.approx([0.94, 0.7132], rel=1e-12)


def test_sgd_without_momentum_by_hand() -> None:
    found = updates(
        lambda groups: optim.sgd(groups, momentum=0.0),
        start=1.0,
        weight_decay=0.0,
        steps=[(2.0, 0.25), (-1.0, 0.5)],
    )
    assert found == pytest.approx([0.5, 1.0], rel=1e-12)


def test_adamw_by_hand() -> None:
    """β = (0.5, 0.75), ε = 1, decay 0.1 apart from the gradient.

    Step 1, rate 0.1: w = 1·(1 − 0.01) = 0.99; m = 1, m̂ = 1/0.5 = 2; v = 1, v̂ = 1/0.25 = 4;
    w = 0.99 − 0.1·2/(2 + 1) = 0.923333….
    Step 2, rate 0.2, g = −2: w = 0.923333·(1 − 0.02) = 0.904866…; m = 0.5·1 − 1 = −0.5,
    m̂ = −0.5/0.75 = −2/3; v = 0.75·1 + 0.25·4 = 1.75, v̂ = 1.75/0.4375 = 4;
    w = 0.904866… + 0.2·(2/3)/3 = 0.949311….
    """
    found = updates(
        lambda groups: optim.adamw(groups, betas=(0.5, 0.75), eps=1.0),
        start=1.0,
        weight_decay=0.1,
        steps=[(2.0, 0.1), (-2.0, 0.2)],
    )
    first = 0.99 - 0.2 / 3
    assert found == pytest.approx([first, first * 0.98 + 0.4 / 9], rel=1e-12)


def test_optimizers_take_every_parameter_of_the_groups() -> None:
    model = network()
    for make in (
        lambda groups: optim.sgd(groups, momentum=0.9),
        lambda groups: optim.adamw(groups, betas=(0.9, 0.999), eps=1e-8),
    ):
        groups = optim.parameter_groups(model, weight_decay=0.5, decay_norm_and_bias=False)
        optimizer = make(groups)  # type: ignore[no-untyped-call]
        taken = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert taken == {id(parameter) for parameter in model.parameters()}
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda groups: optim.sgd(groups, momentum=0.9),
            lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True),
        ),
        (
            lambda groups: optim.adamw(groups, betas=(0.9, 0.999), eps=1e-8),
            lambda groups: torch.optim.AdamW(groups, lr=0.0, fused=True),
        ),
    ],
    ids=["sgd", "adamw"],
)
def test_every_bit_is_that_of_torchs_own_optimizer(
    ours: Callable[..., torch.optim.Optimizer], theirs: Callable[..., torch.optim.Optimizer]
) -> None:
    trained = []
    for make in (ours, theirs):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        images = torch.randn(4, 5)
        optimizer = make([{"params": list(model.parameters()), "weight_decay": 0.01}])
        for step in range(6):
            if step == 3:  # as after a resume
                state = optimizer.state_dict()
                optimizer = make([{"params": list(model.parameters()), "weight_decay": 0.0}])
                optimizer.load_state_dict(state)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
            assert torch.is_grad_enabled()
        trained.append((model.weight.detach(), model.bias.detach(), optimizer.state_dict()))
    (weight, bias, state), (their_weight, their_bias, their_state) = trained
    assert torch.equal(weight, their_weight)
    assert torch.equal(bias, their_bias)
    assert state["param_groups"] == their_state["param_groups"]


@pytest.mark.slow
def test_a_run_imports_no_compiler(tmp_path: Path) -> None:
    """It takes seconds of every process; what imports it may change with torch."""
    code = (
        "import sys; from pathlib import Path\n"
        "from bnbench.runner.execution import execute\n"
        "from bnbench.runner.settings import Settings\n"
        "from tests.runs import experiment_in, small_config\n"
        "execute(small_config(), experiment_in(Path(sys.argv[1])), Settings())\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    repository = Path(__file__).resolve().parents[1]
    completed(sys.executable, "-c", code, tmp_path, cwd=repository)
