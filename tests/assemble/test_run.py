"""Every kind is built and trains, facts are those of the configuration, refusals name it."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from bnbench.assemble import Facts, build_run
from bnbench.assemble.inputs import evaluation_steps
from bnbench.config import schema
from bnbench.errors import ConfigError
from bnbench.events import Evaluation, Finished, Moment, Step
from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.group import GroupNorm, LayerNorm
from bnbench.train import Run, train
from tests.assemble.examples import (
    CPU,
    EXAMPLES,
    SMALL,
    built,
    config,
    kinds,
    smooth,
    synthetic,
)

# --- every kind ---------------------------------------------------------------------------


UNIONS = {"norm": schema.NormConfig, "model": schema.ModelConfig, "optim": schema.OptimConfig}


@pytest.mark.parametrize("block", UNIONS)
def test_every_kind_has_an_example(block: str) -> None:
    assert {type(example) for example in EXAMPLES[block]} == set(kinds(UNIONS[block]))


def words() -> dict[tuple[str, str], list[str]]:
    """Every word that a key of a closed set may be, by (block, key)."""
    found = {}
    for block, kind in (
        ("model", schema.PlainModel),
        ("optim", schema.SGDConfig),
        ("compute", schema.ComputeConfig),
        ("data", schema.SyntheticData),
    ):
        for key, field in kind.model_fields.items():
            choices = [word for word in get_args(field.annotation) if isinstance(word, str)]
            if len(choices) > 1:
                found[block, key] = choices
    return found


def test_words_are_found_in_each_block() -> None:
    assert {block for block, _ in words()} == {"model", "optim", "compute", "data"}


def trains(config: schema.RunConfig) -> list[Step]:
    """Trains to the end; the weights have moved and every number is finite."""
    run = built(config)
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    moments = [each for each in train(run) if isinstance(each, Moment)]
    assert moments[-1].step == run.total_steps == 2
    facts = [fact for moment in moments for fact in moment.facts]
    assert isinstance(facts[-1], Finished)
    steps = [fact for fact in facts if isinstance(fact, Step)]
    assert len(steps) == 2
    evaluations = [fact for fact in facts if isinstance(fact, Evaluation)]
    assert Counter((fact.split, fact.stats) for fact in evaluations) == {
        (split, stats): 1
        for split in ("train", "val", "test")
        for stats in ("running", "batch", "population")
    }
    assert all(np.isfinite([fact.loss, fact.accuracy]).all() for fact in evaluations)
    for (name, parameter), old in zip(run.model.named_parameters(), before, strict=True):
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, old), name
    return steps


@pytest.mark.parametrize("norm", EXAMPLES["norm"], ids=repr)
def test_every_norm_trains(norm: schema.Block) -> None:
    trains(config(norm=norm, model=smooth(SMALL)))


@pytest.mark.parametrize("norm", [schema.NoNorm(kind="none"), schema.BatchNormConfig()], ids=repr)
@pytest.mark.parametrize("model", EXAMPLES["model"], ids=repr)
def test_every_model_trains(model: schema.Block, norm: schema.Block) -> None:
    # At this rate the deep ones do not diverge without normalization either.
    trains(config(norm=norm, model=smooth(model), optim=schema.SGDConfig(lr=1e-3)))


@pytest.mark.parametrize("optim", EXAMPLES["optim"], ids=repr)
def test_every_optimizer_trains(optim: schema.Block) -> None:
    trains(config(optim=optim, model=smooth(SMALL)))


def test_only_the_norms_are_trained_when_asked() -> None:
    run = built(config(optim=schema.SGDConfig(train_only="norm")))
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    list(train(run))
    moved = {
        name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if ".norm." in name}
    assert len(moved) == 4


@pytest.mark.parametrize(("block", "key"), list(words()))
def test_every_word_trains_and_makes_a_difference(block: str, key: str) -> None:
    """A word that changed nothing would have been built as another one."""
    parts = {
        "model": schema.PlainModel(widths=(4, 8), blocks=1, activation="sigmoid"),
        # A drop half-way and a base that differs, so that schedules and rules do by step two.
        "optim": schema.SGDConfig(warmup=0.0, base_batch_size=64),
        "compute": schema.ComputeConfig(),
        "data": synthetic(),
    }
    results = set()
    for word in words()[block, key]:
        changed = parts[block].model_copy(update={key: word})
        steps = trains(config(**{**parts, block: changed}))
        results.add(tuple((step.loss, step.lr) for step in steps))
    assert len(results) == len(words()[block, key])


def norm_layers(run: Run) -> list[nn.Module]:
    return [module for module in run.model.modules() if isinstance(module, GroupNorm | BatchNorm)]


def test_norms_are_built_with_the_values_of_the_configuration() -> None:
    batch = norm_layers(
        built(config(norm=schema.BatchNormConfig(momentum=0.3, eps=0.5, affine=False)))
    )
    assert [type(layer) for layer in batch] == [BatchNorm, BatchNorm]
    for layer in batch:
        assert isinstance(layer, BatchNorm)
        assert (layer.momentum, layer.eps, layer.affine) == (0.3, 0.5, False)
    ghost = norm_layers(
        built(config(norm=schema.BatchNormConfig(batch_size=2, momentum=None, eps=0.25)))
    )
    for layer in ghost:
        assert isinstance(layer, GhostBatchNorm)
        assert (layer.batch_size, layer.momentum, layer.eps, layer.affine) == (2, None, 0.25, True)
    group = norm_layers(built(config(norm=schema.GroupNormConfig(kind="group", groups=2, eps=0.5))))
    assert [type(layer) for layer in group] == [GroupNorm, GroupNorm]
    for layer in group:
        assert isinstance(layer, GroupNorm)
        assert (layer.groups, layer.eps, layer.affine) == (2, 0.5, True)
    layer_norm = norm_layers(built(config(norm=schema.LayerNormConfig(kind="layer", affine=False))))
    assert [type(layer) for layer in layer_norm] == [LayerNorm, LayerNorm]
    assert not any(list(layer.parameters()) for layer in layer_norm)
    assert norm_layers(built(config(norm=schema.NoNorm(kind="none")))) == []


def test_the_optimizer_and_the_rate_are_those_of_the_configuration() -> None:
    run = built(
        config(
            optim=schema.SGDConfig(
                lr=0.5,
                momentum=0.75,
                weight_decay=0.125,
                lr_rule="linear",
                base_batch_size=4,
                schedule="step",
                warmup=0.2,
                milestones=(0.5,),
                decay=0.25,
            ),
            train=schema.TrainConfig(steps=10),
        )
    )
    assert isinstance(run.optimizer, torch.optim.SGD)
    assert [group["momentum"] for group in run.optimizer.param_groups] == [0.75, 0.75]
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.125, 0.0]
    # 0.5 · 8/4 = 1 at the peak, after two steps of warm-up; a quarter from half-way on.
    assert [run.lr_at(step) for step in range(10)] == pytest.approx([0.5, *[1.0] * 4, *[0.25] * 5])
    adam = built(config(optim=schema.AdamWConfig(kind="adamw", betas=(0.5, 0.75), eps=0.1)))
    assert isinstance(adam.optimizer, torch.optim.AdamW)
    for group in adam.optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.5, 0.75), 0.1)


def test_divergence_is_that_of_the_configuration() -> None:
    run = built(
        config(
            train=schema.TrainConfig(steps=40, diverged_above=2.5, log_every=3),
            optim=schema.SGDConfig(warmup=0.1),
        )
    )
    assert run.log_every == 3
    limit = 2.5 * 1.0986122886681098  # ln 3, for three classes
    assert run.divergence.reason(4, limit * 2) is None  # 4 steps of warm-up
    assert run.divergence.reason(5, limit * 0.999) is None
    assert run.divergence.reason(5, limit * 1.001) == "loss above 2.5·ln(classes)"


# --- facts --------------------------------------------------------------------------------


def test_facts_by_hand() -> None:
    """60 training images less 12; batches of 7. Plain, 2 → 4 → 8 channels, after: with biases."""
    _, facts = build_run(
        config(
            data=synthetic(batch_size=7),
            norm=schema.BatchNormConfig(placement="after"),
            train=schema.TrainConfig(epochs=2.5),
        ),
        CPU,
    )
    convolutions = 2 * 4 * 9 + 4 + 4 * 8 * 9 + 8
    assert facts == Facts(
        parameters=convolutions + 2 * (4 + 8) + 8 * 3 + 3,
        trainable_parameters=convolutions + 2 * (4 + 8) + 8 * 3 + 3,
        normalization_layers=2,
        train_images=48,
        validation_images=12,
        test_images=14,
        classes=("class 0", "class 1", "class 2"),
        steps_per_epoch=6,
        total_steps=15,
    )
    _, facts = build_run(
        config(
            data=synthetic(batch_size=7, drop_last=False, train_size=30),
            norm=schema.NoNorm(kind="none"),
            train=schema.TrainConfig(epochs=2),
        ),
        CPU,
    )
    assert (facts.normalization_layers, facts.train_images) == (0, 30)
    assert (facts.steps_per_epoch, facts.total_steps) == (5, 10)


def test_evaluations_are_evenly_spaced_and_end_at_the_end() -> None:
    assert evaluation_steps(100, 4) == {25, 50, 75, 100}
    assert evaluation_steps(10, 3) == {3, 7, 10}
    assert evaluation_steps(423, 1) == {423}
    assert evaluation_steps(3, 10) == {1, 2, 3}  # more evaluations than steps: every step
    for total in range(1, 60):
        for evaluations in range(1, 80):
            found = sorted(evaluation_steps(total, evaluations))
            assert found[-1] == total
            assert found[0] >= 1
            if evaluations <= total:
                assert len(found) == evaluations
                gaps = [b - a for a, b in zip([0, *found[:-1]], found, strict=True)]
                assert max(gaps) - min(gaps) <= 2
            else:
                assert found == list(range(1, total + 1))


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"norm": schema.GroupNormConfig(kind="group", groups=3)},
            "setup arm: norm.groups: 4 channels do not split into 3 groups (model.widths)",
        ),
        (
            {"data": synthetic(batch_size=49)},
            "setup arm: a batch of 49 is more than the 48 training images",
        ),
        (
            {"data": synthetic(validation_size=60)},
            "setup arm: 60 validation images leave none of 60 to train on",
        ),
        (
            {"data": synthetic(train_size=50)},
            "setup arm: 50 training images are more than the 48 that "
            "12 validation images leave of 60",
        ),
    ],
)
def test_what_a_layer_refuses_is_a_fault_of_the_setup(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_run(config(**parts), CPU)
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.exit_code == 2
