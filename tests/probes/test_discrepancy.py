"""`Discrepancy.measure` against a twin that goes image by image, chunk by chunk, layer by layer."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial
from math import isnan

import pytest
import torch

from bnbench.events import Confusion, Evaluation, Gap
from bnbench.norms.batch import BatchNorm
from bnbench.probes.statistics import Discrepancy
from tests.probes.discrepancy_twin import (
    CLASSES,
    NORMS,
    by_name,
    network,
    one_by_one,
    pictures,
    scores,
    twin_measure,
)

# --- the twin: torch's own training mode and plain loops ------------------------------------


# --- measure --------------------------------------------------------------------------------


@pytest.mark.parametrize("pass_size", [1, 3, 4, 8, 11, 100])
@pytest.mark.parametrize("sizes", [(24, 12, 16), (22, 8, 10), (21, 21, 3)], ids=str)
@pytest.mark.parametrize("norm", ["batch", "ghost"])
def test_measure_equals_the_twin(norm: str, sizes: tuple[int, int, int], pass_size: int) -> None:
    """Whatever the size of a pass: 4 images share statistics, a shorter tail joins them."""
    model = network(NORMS[norm])
    population = pictures("train", sizes[0])
    samples = [population.first(sizes[1]), pictures("val", sizes[2], seed=1)]
    facts = Discrepancy(norm_batch_size=4, pass_size=pass_size).measure(
        model, population=population.sample(), samples=[sample.sample() for sample in samples]
    )
    expected = twin_measure(model, population, samples, 4)
    found = by_name(facts)
    assert list(found) == list(expected)
    for key, numbers in expected.items():
        assert found[key] == pytest.approx(numbers, rel=1e-4, abs=1e-5), key
    for fact in facts:
        assert isinstance(fact, Evaluation | Gap)
        assert fact.images == (sizes[1] if fact.split == "train" else sizes[2])
    # The example tells the three apart, or the comparison above would prove little.
    losses = [found["val", stats]["loss"] for stats in ("running", "batch", "population")]
    assert min(abs(losses[i] - losses[i - 1]) for i in range(3)) > 1e-3
    assert found["val", "gap"]["kl"] > 1e-3


@pytest.mark.parametrize("norm", ["none", "group"])
def test_without_batch_statistics_the_three_are_equal_and_the_gap_is_zero(norm: str) -> None:
    model = network(NORMS[norm])
    population, validation = pictures("train", 20), pictures("val", 11, seed=1)
    samples = [population.first(8), validation]
    facts = Discrepancy(norm_batch_size=4, pass_size=3).measure(
        model, population=population.sample(), samples=[sample.sample() for sample in samples]
    )
    found = by_name(facts)
    assert len(facts) == 8
    for sample in samples:
        loss, accuracy = scores(one_by_one(model, sample.x), sample.y)
        three = [found[sample.split, stats] for stats in ("running", "batch", "population")]
        assert three[0] == three[1] == three[2]
        assert three[0] == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-5)
        gap = found[sample.split, "gap"]
        assert gap == {"loss": 0.0, "accuracy": 0.0, "disagreement": 0.0, "kl": 0.0}


def test_the_gap_is_running_minus_batch() -> None:
    model = network(BatchNorm)
    sample = pictures("val", 16)
    found = by_name(
        Discrepancy(norm_batch_size=4, pass_size=8).measure(
            model, population=pictures("train", 16, seed=1).sample(), samples=[sample.sample()]
        )
    )
    for quantity in ("loss", "accuracy"):
        running, batch = (found["val", stats][quantity] for stats in ("running", "batch"))
        assert found["val", "gap"][quantity] == running - batch
    assert found["val", "gap"]["loss"] != 0


@pytest.mark.parametrize(
    ("norm", "norm_batch_size", "expected"),
    [
        # Under batch, running and population statistics; the last 2 join the pass before.
        ("batch", 4, [8, 8, 10, 8, 8, 10, 8, 8, 10]),
        # Only batch statistics need whole chunks: 16, and a tail of 10 that is no chunk.
        ("batch", 16, [26, 8, 8, 10, 8, 8, 10]),
        ("group", 16, [8, 8, 10]),
        ("none", 4, [8, 8, 10]),
    ],
)
def test_a_large_batch_is_no_reason_for_large_passes_where_nothing_is_shared(
    norm: str, norm_batch_size: int, expected: list[int]
) -> None:
    model = network(NORMS[norm])
    passes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    population = pictures("train", 26)
    Discrepancy(norm_batch_size=norm_batch_size, pass_size=8).measure(
        model, population=population.sample(), samples=[population.sample()]
    )
    assert passes == expected


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("fails", [False, True])
def test_measuring_leaves_no_trace(norm: str, fails: bool) -> None:
    model = network(NORMS[norm]).train()
    model[5].eval()
    flags = {module: module.training for module in model.modules()}
    state = copy.deepcopy(model.state_dict())
    rng = torch.get_rng_state()
    calls = 0

    def autocast() -> nullcontext[None]:
        nonlocal calls
        calls += 1
        if fails and calls == 6:
            raise RuntimeError("out of memory")
        return nullcontext()

    probe = Discrepancy(norm_batch_size=4, pass_size=4, autocast=autocast)
    run = partial(
        probe.measure,
        model,
        population=pictures("train", 16).sample(),
        samples=[pictures("train", 16).sample(), pictures("val", 12, seed=1).sample()],
    )
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            run()
    else:
        assert run() == run()  # the same again: nothing has moved
    assert {module: module.training for module in model.modules()} == flags
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_test_split_has_its_confusion_matrix(norm: str) -> None:
    model = network(NORMS[norm])
    test = pictures("test", 21, seed=2)
    facts = Discrepancy(norm_batch_size=4, pass_size=8).measure(
        model,
        population=pictures("train", 16).sample(),
        samples=[pictures("val", 10, seed=1).sample(), test.sample()],
    )
    (found,) = [fact for fact in facts if isinstance(fact, Confusion)]
    expected = [[0] * CLASSES for _ in range(CLASSES)]
    for label, scores_of_one in zip(test.y.tolist(), one_by_one(model, test.x), strict=True):
        expected[label][int(scores_of_one.argmax())] += 1
    assert (found.split, found.stats) == ("test", "running")
    assert found.counts == tuple(map(tuple, expected))
    assert len({sum(row) for row in expected}) > 1, "rows and columns can be told apart"
    (accuracy,) = [
        fact.accuracy
        for fact in facts
        if isinstance(fact, Evaluation) and (fact.split, fact.stats) == ("test", "running")
    ]
    assert sum(found.counts[i][i] for i in range(CLASSES)) == pytest.approx(21 * accuracy)


@pytest.mark.parametrize("norm", NORMS)
def test_bf16_autocast_changes_the_numbers_a_little(norm: str) -> None:
    model = network(NORMS[norm])
    population, validation = pictures("train", 16), pictures("val", 10, seed=1)
    found = []
    for autocast in (nullcontext, partial(torch.autocast, "cpu", torch.bfloat16)):
        facts = Discrepancy(norm_batch_size=4, pass_size=8, autocast=autocast).measure(
            model,
            population=population.sample(),
            samples=[population.sample(), validation.sample()],
        )
        found.append(by_name(facts))
    exact, half = found
    for key, numbers in exact.items():
        if key[1] != "gap":
            assert half[key]["loss"] == pytest.approx(numbers["loss"], rel=0.05)
            assert half[key]["loss"] != numbers["loss"]
        elif norm in ("none", "group"):
            assert set(half[key].values()) == {0.0}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("norm", NORMS)
def test_logits_that_are_not_finite_are_measured_all_the_same(norm: str, poison: float) -> None:
    model = network(NORMS[norm])
    with torch.no_grad():
        model.get_parameter("8.weight").fill_(poison)
    facts = Discrepancy(norm_batch_size=4, pass_size=8).measure(
        model,
        population=pictures("train", 16).sample(),
        samples=[pictures("val", 10, seed=1).sample()],
    )
    assert len(facts) == 4
    for fact in facts:
        assert isinstance(fact, Evaluation | Gap)
        assert isnan(fact.loss)
        assert 0 <= fact.accuracy <= 1
