"""The loop, stopped and gone on from its state: bit for bit."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bnbench.assemble import build_run
from bnbench.config import schema
from bnbench.events import (
    Finished,
    Moment,
    SafePoint,
)
from bnbench.train import Run, train
from tests.runs import all_probes
from tests.test_train import moments, words

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
