"""The figures against slow loops over torch's own layers, which share nothing with the probes."""

from __future__ import annotations

import copy
from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnbench
from bnbench.diagnosis.batches import collect
from bnbench.diagnosis.criteria import channels, harms, homogeneity, padding
from bnbench.diagnosis.predictions import Predictions
from bnbench.guard import ForeignCode
from tests.diagnosis.patients import (
    BATCH,
    IMAGES,
    eval_loader,
    loader,
    norms,
    pictures,
    steps,
    trained,
)


def read(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    loss = F.cross_entropy(logits.double(), labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def test_running_and_batch_statistics_are_those_of_torchs_own_modes() -> None:
    model = trained()
    found = bnbench.diagnose(model, loader(count=512), eval_loader(), images=512)
    x, y, *_ = pictures()
    x, y = x[:512], y[:512]
    twin = copy.deepcopy(model).eval()
    running = found.reading("running")
    with torch.no_grad():
        assert (running.loss, running.accuracy) == pytest.approx(read(twin(x), y), abs=1e-6)
        twin.train()
        logits = torch.cat([twin(part) for part in x.split(BATCH)])  # type: ignore[no-untyped-call]
    batch = found.reading("batch")
    assert (batch.loss, batch.accuracy) == pytest.approx(read(logits, y), abs=1e-6)


def test_population_statistics_are_those_of_everything_at_once() -> None:
    """One batch of all the images: its statistics are the population's, its loss, too. In fp64: the
    variances of torch's own layer in fp32 are off by 2e-4 here (channels-last)."""
    model = trained()
    whole = bnbench.diagnose(model, loader(512, count=512), images=512)
    x, y, *_ = pictures()
    twin = copy.deepcopy(model).train().double()
    for each in norms(twin).values():
        each.momentum = 1.0
    with torch.no_grad():
        logits = twin(x[:512].double())
    population = whole.reading("population")
    assert (population.loss, population.accuracy) == pytest.approx(read(logits, y[:512]), abs=1e-5)
    fixed = whole.recalibrated(model.state_dict())
    for name in norms(twin):
        for part in ("running_mean", "running_var"):  # torch's, too, is the unbiased variance
            key = f"{name}.{part}"
            expected = twin.state_dict()[key].float()
            torch.testing.assert_close(fixed[key], expected, rtol=1e-5, atol=1e-6)


def test_what_is_recalibrated_gives_what_was_promised() -> None:
    model = trained()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.5)
    before = bnbench.diagnose(model, loader(), eval_loader(), images=IMAGES)
    fixed = copy.deepcopy(model)
    fixed.load_state_dict(before.recalibrated(model.state_dict()))
    after = bnbench.diagnose(fixed, loader(), eval_loader(), images=IMAGES)
    assert not before.healthy
    assert after.healthy
    for which in ("train", "eval"):
        promised, kept = before.reading("population", which), after.reading("running", which)
        assert kept.loss == pytest.approx(promised.loss, abs=1e-4)
        assert kept.accuracy == pytest.approx(promised.accuracy, abs=2e-3)


def test_many_batches_in_a_pass_are_as_one_by_one() -> None:
    """A network that folds a dimension away must be passed batch by batch; the figures agree."""

    class Folds(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([x, x])  # the same statistics, twice the first dimension
            logits: Tensor = self.inner(both)
            return logits[: len(x)]

    model = trained()
    together = bnbench.diagnose(model, loader(8, count=256), images=256)
    apart = bnbench.diagnose(Folds(model), loader(8, count=256), images=256)
    for one, other in zip(together.readings, apart.readings, strict=True):
        assert one.statistics == other.statistics
        assert one.loss == pytest.approx(other.loss, abs=1e-5)


def test_homogeneity_against_all_pairs() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 1])
    sizes = (3, 4)
    found = homogeneity(labels, sizes, seed=0)
    groups = [labels[:3].tolist(), labels[3:].tolist()]
    pairs = [(a, b) for g in groups for i, a in enumerate(g) for j, b in enumerate(g) if i != j]
    assert found.found == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert found.classes == (len(set(groups[0])) + len(set(groups[1]))) / 2
    everywhere = labels.tolist()
    expected = [
        a == b for i, a in enumerate(everywhere) for j, b in enumerate(everywhere) if i != j
    ]
    assert found.expected == pytest.approx(sum(expected) / len(expected), abs=0.05)


def test_shuffled_labels_are_not_called_sorted() -> None:
    random = torch.Generator().manual_seed(0)
    called = [
        homogeneity(torch.randint(10, (512,), generator=random), (32,) * 16, seed).sorted
        for seed in range(20)
    ]
    assert not any(called)
    assert homogeneity(torch.arange(512) // 52, (32,) * 16, seed=0).sorted
    assert not homogeneity(torch.zeros(64, dtype=torch.long), (32, 32), seed=0).sorted


def test_harm_is_neither_chance_nor_trifle() -> None:
    random = torch.Generator().manual_seed(0)
    losses = torch.rand(1000, generator=random, dtype=torch.float64)
    labels = torch.zeros(1000, dtype=torch.long)

    def predictions(more: Tensor | float, wrong: int = 0) -> Predictions:
        predicted = labels.clone()
        predicted[:wrong] = 1
        return Predictions(losses + more, (predicted == labels).double(), predicted)

    noise = torch.randn(1000, generator=random, dtype=torch.float64)
    assert harms(predictions(0.06), predictions(0.0))
    assert not harms(predictions(0.04), predictions(0.0))  # certain, and too little to matter
    assert not harms(predictions(0.0), predictions(0.06))
    assert not harms(predictions(noise * 3 + 0.1), predictions(0.0))  # much, and within chance
    assert harms(predictions(0.0, wrong=50), predictions(0.0))
    assert not harms(predictions(0.0, wrong=15), predictions(0.0))
    assert harms(predictions(float("nan")), predictions(0.0))
    assert not harms(predictions(float("nan")), predictions(float("nan")))


def test_channels_that_are_constant_and_channels_below_eps() -> None:
    mean = torch.tensor([3.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    variance = torch.tensor([1e-14, 1e-6, 2.0, 1.0], dtype=torch.float64)
    dead, under = channels(mean, variance, 1e-5)
    assert dead.tolist() == [True, True, False, False]  # next to 1.0, 1e-6 is nothing
    assert under.tolist() == [False, False, False, False]
    dead, under = channels(mean, variance * 1e-6, 1e-5)
    assert (dead.tolist(), under.tolist()) == ([True, True, False, False], [False] * 2 + [True] * 2)
    constant = torch.zeros(4, dtype=torch.float64)
    assert channels(mean, constant, 1e-5)[0].all()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_the_share_of_padding(first: bool, last: bool) -> None:
    """Of batches (32, 3, 10), or (32, 10, 3), in which the longest has 10; a loop counts."""
    x = torch.randn(64, 3, 10, generator=torch.Generator().manual_seed(0))
    lengths = [10, 10, 7, 4] * 16
    for each, length in zip(x, lengths, strict=True):
        each[:, : 10 - length] = 0
    x = (x if first else x.flip(2)).contiguous()
    x = x.transpose(1, 2) if last else x
    images = collect([x[:32], x[32:]], "train", 64, torch.device("cpu"), ForeignCode())
    assert padding(images) == pytest.approx(1 - sum(lengths) / 640)
    full = collect([x[:32] + 1, x[32:] + 1], "train", 64, torch.device("cpu"), ForeignCode())
    assert padding(full) == 0
    margins = torch.cat([x[:32], x[:32].flip(1 if last else 2)])  # as pictures (N, H, W) have
    assert padding(collect([margins], "train", 64, torch.device("cpu"), ForeignCode())) == 0


def test_the_weight_of_the_initial_statistics() -> None:
    model = trained()
    for each in norms(model).values():
        each.num_batches_tracked = torch.tensor(22)
    found = bnbench.diagnose(model, loader(count=256), images=256)
    assert [each.initial_weight for each in found.layers] == [pytest.approx(0.9**22)] * 3
    assert log(0.1) / log(0.9) == pytest.approx(22, abs=0.2)


def test_few_batches_of_a_sorted_loader_are_spread_over_all_classes() -> None:
    kept = collect(loader(by_class=True), "train", 1024, torch.device("cpu"), ForeignCode())
    assert len(kept) == 1024
    labels = kept.column((1,))
    assert isinstance(labels, Tensor)
    assert labels.unique().tolist() == list(range(10))  # type: ignore[no-untyped-call]
    assert (labels.diff() >= 0).all()  # in the loader's order
    listed = collect(list(loader(by_class=True)), "train", 1024, torch.device("cpu"), ForeignCode())
    for path in ((0,), (1,)):
        one, other = listed.column(path), kept.column(path)
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        assert torch.equal(one, other)


def test_of_batches_that_differ_in_size_the_one_of_most_examples_counts() -> None:
    """Batches of 1, 32, 3, 32, 1: there are as many of one as of 32, and one example has no
    variance: statistics of such batches would be wrong for a healthy network."""
    torch.manual_seed(0)
    model = steps(
        nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32), nn.Linear(32, 10)), 60
    )
    x, y, *_ = pictures()
    sizes = (1, 32, 3, 32, 1)
    ragged = list(zip(x[:69].split(sizes), y[:69].split(sizes), strict=True))  # type: ignore[no-untyped-call]
    found = bnbench.diagnose(model, ragged, images=69)
    assert found.batch_size == 32
    assert {each.name for each in found.findings} == {"small-last-batch"}
    twin = copy.deepcopy(model).train()  # a single example joins its neighbours
    with torch.no_grad():
        logits = torch.cat([twin(part) for part in x[:69].split((33, 3, 33))])  # type: ignore[no-untyped-call]
    batch = found.reading("batch")
    assert (batch.loss, batch.accuracy) == pytest.approx(read(logits, y[:69]), abs=1e-5)
