"""The loop: order of facts, losses, clock and divergence by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from math import inf, log, log1p, nan

import pytest
import torch
from torch import Tensor, nn

from bnbench.events import (
    Diverged,
    Evaluation,
    Finished,
    Measurement,
    Moment,
    Reading,
    SafePoint,
    Step,
)
from bnbench.train import Divergence, Probe, Run, train

# --- a run whose losses are known ----------------------------------------------------------


class Echo(nn.Module):
    """Puts out what it is given; its one weight learns nothing, so that losses stay as planned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * self.weight.nan_to_num()


def logits_of_loss(loss: float, images: int) -> tuple[Tensor, Tensor]:
    """Two-class logits (0, z) of class 0: the cross entropy is ln(1 + eᶻ)."""
    z = loss if loss != loss or loss == inf else log(torch.tensor(loss).double().expm1().item())
    return torch.tensor([[0.0, z]]).expand(images, 2), torch.zeros(images, dtype=torch.long)


@dataclass
class Clock:
    """A clock that only stands where somebody moves it."""

    now: float = 50.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Stub:
    """Parts of a run, and a diary of who called them."""

    losses: list[float]
    evaluate_after: frozenset[int] = frozenset()
    log_every: int = 1
    images: Callable[[int], int] = lambda _: 4
    limit: float = inf
    grace_steps: int = 0
    clock: Clock = field(default_factory=Clock)
    diary: list[str] = field(default_factory=list)

    def batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        self.diary.append(f"batch {step}")
        self.clock.now += 3
        return logits_of_loss(self.losses[step], self.images(step))

    def reseed(self, step: int) -> None:
        self.diary.append(f"reseed {step}")
        self.clock.now += 0.25

    def evaluate(self, name: str) -> Callable[[], list[Measurement]]:
        def measure() -> list[Measurement]:
            self.diary.append(name)
            self.clock.now += 100
            return [Evaluation(split="val", stats="running", images=1, loss=0.5, accuracy=0.5)]

        return measure

    def probe(self, name: str, *read_after: int) -> Probe:
        memory: dict[str, Tensor] = {}

        def read(step: int) -> list[Reading]:
            self.diary.append(f"{name} {step}")
            self.clock.now += 50
            before = memory.get("reading", torch.tensor(-1.0)).item()
            memory["reading"] = torch.tensor(float(step))
            return [Reading(probe=name, layer="network", name="before", value=before)]

        return Probe(read_after=frozenset(read_after), read=read, memory=memory)

    def run(self) -> Run:
        model = Echo()
        return Run(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            batch_at=self.batch_at,
            lr_at=lambda step: 10.0 + step,
            total_steps=len(self.losses),
            evaluate_after=self.evaluate_after,
            evaluate=self.evaluate("evaluate"),
            evaluate_last=self.evaluate("evaluate_last"),
            log_every=self.log_every,
            divergence=Divergence(self.limit, self.grace_steps, "the limit"),
            autocast=nullcontext,
            reseed=self.reseed,
        )


def words(stated: list[Moment | SafePoint]) -> list[str]:
    """A line for each: the step, and what is stated of it."""
    return [
        f"{each.step} SafePoint"
        if isinstance(each, SafePoint)
        else f"{each.step} {' '.join(type(fact).__name__ for fact in each.facts)}"
        for each in stated
    ]


def moments(run: Run) -> list[Moment]:
    return [each for each in train(run) if isinstance(each, Moment)]


def steps_stated(run: Run) -> list[tuple[Moment, Step]]:
    """The reports, each with its moment."""
    return [(m, fact) for m in moments(run) for fact in m.facts if isinstance(fact, Step)]


def test_moments_come_in_order() -> None:
    stub = Stub([0.5] * 5, evaluate_after=frozenset({2, 5}), log_every=2)
    assert words(list(train(stub.run()))) == [
        "1 SafePoint",
        "2 Step",
        "2 SafePoint",  # before the evaluation: what resumes here evaluates first
        "2 Evaluation",
        "3 SafePoint",
        "4 Step",
        "4 SafePoint",
        "5 Step",  # the last step is reported, whether due or not
        "5 SafePoint",
        "5 Evaluation Finished",
    ]
    assert stub.diary == [
        *("batch 0", "reseed 0", "batch 1", "reseed 1"),
        "evaluate",
        *("batch 2", "reseed 2", "batch 3", "reseed 3", "batch 4", "reseed 4"),
        "evaluate_last",
    ]


def test_probes_read_before_the_first_step_and_after_evaluations() -> None:
    stub = Stub([0.5] * 4, evaluate_after=frozenset({2, 4}), log_every=4)
    run = stub.run()
    run.probes = {"one": stub.probe("one", 0, 4), "other": stub.probe("other", 2, 4)}
    stated = list(train(run))
    assert words(stated) == [
        "0 Reading",
        "1 SafePoint",
        "2 SafePoint",
        "2 Evaluation Reading",
        "3 SafePoint",
        "4 Step",
        "4 SafePoint",
        "4 Evaluation Reading Reading Finished",
    ]
    read = [
        (fact.probe, each.step, fact.value)
        for each in stated
        if isinstance(each, Moment)
        for fact in each.facts
        if isinstance(fact, Reading)
    ]
    assert read == [("one", 0, -1.0), ("other", 2, -1.0), ("one", 4, 0.0), ("other", 4, 2.0)]
    state = run.state_dict()["probes"]
    assert state == {"one": {"reading": 4.0}, "other": {"reading": 4.0}}


def test_nothing_is_trained_ahead_of_a_moment() -> None:
    """A sink that raises at a moment has seen every step that was taken."""
    stub = Stub([0.5] * 3)
    with closing(train(stub.run())) as stated:
        assert words([next(stated)]) == ["1 Step"]
        assert stub.diary == ["batch 0", "reseed 0"]


def test_reports_by_hand() -> None:
    """Batches of 4, 1, 4, 1, 4 images; the mean is over minibatches, each counted once."""
    stub = Stub(
        [0.5, 1.5, 4.0, 0.25, 2.0], log_every=2, images=lambda step: 4 if step % 2 == 0 else 1
    )
    found = steps_stated(stub.run())
    assert [step.loss for _, step in found] == pytest.approx([1.0, 2.125, 2.0], rel=1e-6)
    assert [step.loss_max for _, step in found] == pytest.approx([1.5, 4.0, 2.0], rel=1e-6)
    assert [moment.examples for moment, _ in found] == [5, 10, 14]
    assert [step.lr for _, step in found] == [11.0, 13.0, 14.0]  # of the step just taken


def test_the_optimizer_is_given_the_rate_of_its_step() -> None:
    run = Stub([0.5] * 3).run()
    used: list[float] = []
    run.optimizer.register_step_pre_hook(
        lambda optimizer, _, __: used.append(optimizer.param_groups[0]["lr"])
    )
    list(train(run))
    assert used == [10.0, 11.0, 12.0]


def test_gradients_do_not_add_up_over_steps() -> None:
    """w = 0, rate 1: a gradient of 1 a step, were last step's kept it would be 1, then 2."""

    class Bias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            # Class 0 is hopeless: d loss / d w = 1 to machine precision.
            return torch.stack([x[:, 0] - self.w, x[:, 1]], 1)

    stub = Stub([60.0] * 3)
    run = stub.run()
    run.model = Bias()
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.0)
    run.lr_at = lambda _: 1.0
    list(train(run))
    assert run.model.get_parameter("w").item() == pytest.approx(-3.0)


def test_the_clock_runs_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 3.25 s, an evaluation 100 s, a sink 1,000 s a moment."""
    stub = Stub([0.5] * 4, evaluate_after=frozenset({2, 4}), log_every=3)
    monkeypatch.setattr("bnbench.train.perf_counter", stub.clock)
    run = stub.run()
    run.probes = {"one": stub.probe("one", 0, 2)}
    seconds: dict[str, float] = {}
    for each in train(run):
        stub.clock.now += 1000
        if isinstance(each, Moment):
            seconds |= dict.fromkeys(words([each]), each.train_seconds)
    assert seconds == {
        "0 Reading": 0.0,
        "2 Evaluation Reading": 6.5,
        "3 Step": 9.75,
        "4 Step": 13.0,
        "4 Evaluation Finished": 13.0,
    }
    assert run.position.evaluation_seconds == 200.0
    assert run.position.probe_seconds == 100.0


# --- divergence ---------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", [1, 2, 7, 1000])
@pytest.mark.parametrize("evaluate_after", [{12}, {3, 6, 9, 12}, {5}, set()])
@pytest.mark.parametrize("loss", [nan, inf])
def test_a_loss_that_is_not_finite_gives_its_very_step(
    loss: float, evaluate_after: set[int], log_every: int
) -> None:
    losses = [0.5] * 12
    losses[4] = losses[7] = loss
    stub = Stub(
        losses,
        evaluate_after=frozenset(evaluate_after),
        log_every=log_every,
        images=lambda step: 4 if step < 3 else 2,
    )
    *before, end = moments(stub.run())
    assert (end.step, end.examples) == (5, 3 * 4 + 2 * 2)
    assert end.facts == (Diverged(reason="loss is not finite"),)
    assert all(moment.step < 5 for moment in before), "no report and no evaluation after the end"


@pytest.mark.parametrize("log_every", [1, 7, 1000])
def test_the_limit_holds_after_the_grace_steps(log_every: int) -> None:
    high = [0.5, 9.0, 9.0, 9.0, 0.5, 9.0, 0.5]
    ends = {
        grace: moments(Stub(high, log_every=log_every, limit=8.0, grace_steps=grace).run())[-1]
        for grace in (0, 1, 2, 3, 4, 5, 6)
    }
    found = {
        grace: None if end.facts[-1] == Finished() else end.step for grace, end in ends.items()
    }
    assert found == {0: 2, 1: 2, 2: 3, 3: 4, 4: 6, 5: 6, 6: None}
    assert ends[0].facts == (Diverged(reason="loss above the limit"),)


def test_no_grace_for_a_loss_that_is_not_finite() -> None:
    divergence = Divergence(limit=2.0, grace_steps=10, criterion="x")
    assert divergence.reason(1, nan) == "loss is not finite"
    assert divergence.reason(1, -inf) == "loss is not finite"
    assert divergence.reason(10, 2.5) is None
    assert divergence.reason(11, 2.5) == "loss above x"
    assert divergence.reason(11, 2.0) is None  # at the limit is not above it


def test_losses_are_what_was_planned() -> None:
    """The stub itself: ln(1 + e^z) of the logits it hands out."""
    logits, _ = logits_of_loss(1.5, 2)
    assert log1p(logits[0, 1].exp().item()) == pytest.approx(1.5)
