"""The loop: order of facts, losses, clock and divergence by hand; resuming bit for bit."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from math import inf, log, log1p, nan
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnbench.assemble import build_run
from bnbench.config import schema
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
from tests.runs import all_probes

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


# --- resuming -----------------------------------------------------------------------------

STEPS = 12


def config(optimizer: str = "sgd", model: str = "plain") -> schema.RunConfig:
    """Everything that could be lost: momentum, dropout, augmentation, running statistics."""
    return schema.RunConfig(
        experiment="t",
        setup="t",
        data=schema.SyntheticData(
            dataset="synthetic",
            train_images=56,
            test_images=12,
            classes=3,
            image_size=8,
            validation_size=12,
            batch_size=8,
            augment="flip-crop",
        ),
        model=schema.PlainModel(widths=(4, 6), blocks=1, dropout=0.3)
        if model == "plain"
        else schema.MLPModel(kind="mlp", widths=(8,), dropout=0.3),
        norm=schema.BatchNormConfig(batch_size=4, momentum=None),
        optim=schema.SGDConfig(lr=0.1, momentum=0.9)
        if optimizer == "sgd"
        else schema.AdamWConfig(kind="adamw", lr=0.01, weight_decay=0.1),
        train=schema.TrainConfig(steps=STEPS, evaluations=3, evaluation_images=8, log_every=5),
        probes=all_probes(),
        seed=3,
    )


def fresh(config: schema.RunConfig) -> Run:
    run, _ = build_run(config, torch.device("cpu"))
    return run


def timeless(stated: list[Moment | SafePoint]) -> list[Moment | SafePoint]:
    return [
        replace(each, train_seconds=0.0) if isinstance(each, Moment) else each for each in stated
    ]


def weights(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def saved(state: dict[str, Any]) -> bytes:
    """As a checkpoint holds it: what came after cannot reach it."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def loaded(state: bytes) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
    return found


@dataclass(frozen=True)
class Story:
    """A run that was never interrupted, with its state at each place where it could have been."""

    stated: list[Moment | SafePoint]
    weights: dict[str, Tensor]
    states: dict[int, bytes]

    def after(self, step: int) -> list[Moment | SafePoint]:
        return self.stated[self.stated.index(SafePoint(step)) + 1 :]


def tell(config: schema.RunConfig) -> Story:
    run, stated, states = fresh(config), [], {}
    for each in train(run):
        stated.append(each)
        if isinstance(each, SafePoint):
            states[each.step] = saved(run.state_dict())
    return Story(timeless(stated), weights(run), states)


def resume(config: schema.RunConfig, state: dict[str, Any]) -> tuple[list[Moment | SafePoint], Run]:
    run = fresh(config)
    run.load_state_dict(state)
    torch.manual_seed(999)  # another process has other global random numbers
    return timeless(list(train(run))), run


@pytest.fixture(scope="module")
def story() -> Story:
    return tell(config())


def test_looking_at_the_state_changes_nothing(story: Story) -> None:
    run = fresh(config())
    torch.manual_seed(5)
    assert timeless(list(train(run))) == story.stated
    assert equal(weights(run), story.weights)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_what_resumes_at_a_safe_point_goes_on_bit_for_bit(story: Story, step: int) -> None:
    stated, run = resume(config(), loaded(story.states[step]))
    assert stated == story.after(step)
    assert words(stated)[-1].endswith("Finished")
    assert equal(weights(run), story.weights)


@pytest.mark.parametrize("changed", [{"optimizer": "adamw"}, {"model": "mlp"}])
def test_other_optimizers_and_networks_resume_too(changed: dict[str, str]) -> None:
    story = tell(config(**changed))
    for step in (1, 4, 7):
        stated, run = resume(config(**changed), loaded(story.states[step]))
        assert stated == story.after(step)
        assert equal(weights(run), story.weights)


def test_the_state_survives_a_second_interruption(story: Story) -> None:
    first = fresh(config())
    first.load_state_dict(loaded(story.states[2]))
    between = b""
    with closing(train(first)) as stated:
        for each in stated:
            if each == SafePoint(6):
                between = saved(first.state_dict())
                break
    stated_after, run = resume(config(), loaded(between))
    assert stated_after == story.after(6)
    assert equal(weights(run), story.weights)


def test_seconds_go_on_from_where_they_were(story: Story) -> None:
    state = loaded(story.states[7])
    state["train_seconds"], state["evaluation_seconds"] = 1000.0, 500.0
    run = fresh(config())
    run.load_state_dict(state)
    end = moments(run)[-1]
    assert end.facts[-1] == Finished()
    assert 1000.0 < end.train_seconds < 1500.0
    assert run.position.evaluation_seconds > 500.0


def lose_optimizer(state: dict[str, Any], start: dict[str, Any]) -> None:
    state["optimizer"] = start["optimizer"]


def lose_weights(state: dict[str, Any], start: dict[str, Any]) -> None:
    for key in state["model"]:
        if "running" not in key and "tracked" not in key:
            state["model"][key] = start["model"][key]


def lose_buffers(state: dict[str, Any], start: dict[str, Any]) -> None:
    for key in state["model"]:
        if "running" in key:
            state["model"][key] = start["model"][key]


def lose_batch_count(state: dict[str, Any], start: dict[str, Any]) -> None:
    for key in state["model"]:
        if "tracked" in key:
            state["model"][key] = start["model"][key]


def lose_step(state: dict[str, Any], start: dict[str, Any]) -> None:
    state["step"] = start["step"]


def lose_examples(state: dict[str, Any], start: dict[str, Any]) -> None:
    state["examples"] = start["examples"]


def lose_losses(state: dict[str, Any], start: dict[str, Any]) -> None:
    state["losses"] = start["losses"]


def lose_probes(state: dict[str, Any], start: dict[str, Any]) -> None:
    state["probes"] = start["probes"]


LOSSES_OF_STATE = [
    lose_optimizer,
    lose_weights,
    lose_buffers,
    lose_batch_count,
    lose_step,
    lose_examples,
    lose_losses,
    lose_probes,
]


@pytest.mark.parametrize("lose", LOSSES_OF_STATE)
def test_no_part_of_the_state_can_be_left_out(
    story: Story, lose: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    """The comparison above would notice: the same, with one part as it was at the start."""
    state = loaded(story.states[7])  # between two reports: losses are pending
    assert len(state["losses"]) == 2
    lose(state, loaded(saved(fresh(config()).state_dict())))
    stated, _ = resume(config(), state)
    assert stated != story.after(7)


def test_the_state_has_no_other_parts(story: Story) -> None:
    """A part that is added needs its own control above; seconds have their own test."""
    assert set(loaded(story.states[7])) == {
        "model",
        "optimizer",
        "step",
        "examples",
        "losses",
        "train_seconds",
        "evaluation_seconds",
        "probe_seconds",
        "probes",
    }


@pytest.mark.parametrize("key", ["step", "losses", "model", "optimizer", "probes"])
def test_a_state_with_a_part_missing_is_not_taken(story: Story, key: str) -> None:
    state = loaded(story.states[7])
    del state[key]
    with pytest.raises(KeyError, match=key):
        fresh(config()).load_state_dict(state)


def test_dropout_and_augmentation_are_at_work_in_what_resumes(story: Story) -> None:
    """Else resuming them proves nothing."""
    without = config()
    for changed in (
        without.model_copy(update={"model": schema.PlainModel(widths=(4, 6), blocks=1)}),
        without.model_copy(update={"data": without.data.model_copy(update={"augment": "none"})}),
        without.model_copy(update={"optim": schema.SGDConfig(lr=0.1, momentum=0.0)}),
    ):
        assert timeless(list(train(fresh(changed)))) != story.stated
