"""Evaluations: which images, in which batches, and that they leave no trace in the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from bnbench.assemble import inputs
from bnbench.assemble.inputs import norm_batch_size
from bnbench.config import schema
from bnbench.data import batches as data_batches
from bnbench.data.batches import Standardize
from bnbench.data.dataset import Images
from bnbench.events import Confusion, Measurement
from tests.assemble.examples import (
    SMALLEST,
    built,
    config,
    epoch,
    synthetic,
)


def test_without_validation_images_the_others_are_evaluated() -> None:
    run = built(config(data=synthetic(validation_size=0)))
    for measure, expected in ((run.evaluate, ["train"]), (run.evaluate_last, ["train", "test"])):
        splits = [fact.split for fact in measure()]
        assert list(dict.fromkeys(splits)) == expected
    batches: Any = run.batch_at
    assert batches.steps_per_epoch == 60 // 8


@dataclass
class Looks:
    """What the evaluations of a run look at: indices of images, pass by pass."""

    passes: list[tuple[Images, list[int]]]

    def of(self, images: Images) -> list[list[int]]:
        return [indices for source, indices in self.passes if source is images]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    found = Looks([])
    real = data_batches.chunks

    def watched(images: Images, indices: Tensor, **options: Any) -> object:
        found.passes.append((images, indices.tolist()))
        return real(images, indices, **options)

    monkeypatch.setattr(data_batches, "chunks", watched)
    return found


def sizes(facts: list[Measurement]) -> dict[str, int]:
    found: dict[str, set[int]] = {}
    for fact in facts:
        images = sum(map(sum, fact.counts)) if isinstance(fact, Confusion) else fact.images
        found.setdefault(fact.split, set()).add(images)
    assert all(len(images) == 1 for images in found.values())
    return {split: images.pop() for split, images in found.items()}


@pytest.mark.parametrize(
    ("batch_size", "norm", "few", "interim", "last"),
    [
        # 256 images are whole chunks of 64, as are 1,024 for the population.
        (64, schema.BatchNormConfig(), 256, (256, 256), 1024),
        # Chunks of 48: 6 make 288, 22 make 1,056.
        (48, schema.BatchNormConfig(), 256, (288, 288), 1056),
        (48, schema.BatchNormConfig(batch_size=16), 256, (256, 256), 1024),
        (2, schema.BatchNormConfig(), 256, (256, 256), 1024),
        # One chunk is more than 256, and more than there is to validate on.
        (400, schema.BatchNormConfig(), 256, (400, 300), 1200),
        # Everything there is.
        (64, schema.BatchNormConfig(), None, (1024, 300), 1024),
        (1300, schema.BatchNormConfig(), 256, (1300, 300), 1300),
        # Others look at the same images, so that they can be compared.
        (48, schema.NoNorm(kind="none"), 256, (288, 288), 1056),
        (48, schema.GroupNormConfig(kind="group", groups=2), 256, (288, 288), 1056),
        (64, schema.BatchNormConfig(), 10, (64, 64), 1024),
    ],
)
def test_evaluations_take_whole_chunks(
    batch_size: int, norm: schema.NormConfig, few: int | None, interim: tuple[int, int], last: int
) -> None:
    run = built(
        config(
            data=synthetic(
                train_images=1600, test_images=70, validation_size=300, batch_size=batch_size
            ),
            model=SMALLEST,
            norm=norm,
            train=schema.TrainConfig(steps=2, evaluation_images=few),
        )
    )
    assert sizes(run.evaluate()) == {"train": interim[0], "val": interim[1]}
    assert sizes(run.evaluate_last()) == {"train": last, "val": 300, "test": 70}


LARGE: dict[str, Any] = {
    "train_images": 1600,
    "test_images": 70,
    "validation_size": 300,
    "batch_size": 48,
}
FEW = schema.TrainConfig(steps=2, evaluation_images=128)


def test_evaluations_look_at_the_images_of_their_split(looks: Looks) -> None:
    large = config(data=synthetic(**LARGE), model=SMALLEST, train=FEW)
    run = built(large)
    dataset = inputs.load_dataset(large.data, lambda _: None)
    trained = {tuple(x.flatten().tolist()) for x in epoch(run, 27)[0]}
    run.evaluate()
    run.evaluate_last()

    passes = looks.of(dataset.train)
    population = next(indices for indices in passes if len(indices) == 1056)
    prefixes = [indices for indices in passes if len(indices) == 144]
    train_few = next(indices for indices in prefixes if set(indices) <= set(population))
    validation = next(indices for indices in passes if len(indices) == 300)
    validation_few = next(indices for indices in prefixes if set(indices) <= set(validation))
    assert train_few == population[:144]
    assert validation_few == validation[:144]
    assert not set(population) & set(validation)
    assert len(set(population)) == 1056
    assert {tuple(i) for i in looks.of(dataset.test)} == {tuple(looks.of(dataset.test)[0])}
    assert sorted(looks.of(dataset.test)[0]) == list(range(70))

    standardize = Standardize(dataset.mean, dataset.std)

    def pictures(indices: list[int]) -> set[tuple[float, ...]]:
        pixels = standardize(dataset.train.pixels[indices])
        return {tuple(x.flatten().tolist()) for x in pixels}

    # 27 batches of 48 leave 4 of the 1,300 out.
    assert len(pictures(population) - trained) <= 4
    assert not pictures(validation) & trained
    # Stratified: a third of each class, give or take the rounding.
    counts = Counter(dataset.train.labels[population].tolist())
    assert max(counts.values()) - min(counts.values()) <= 2


def test_setups_are_evaluated_on_the_same_images_in_the_same_order(looks: Looks) -> None:
    seen = []
    for norm in (
        schema.BatchNormConfig(),
        schema.NoNorm(kind="none"),
        schema.GroupNormConfig(kind="group", groups=2),
    ):
        looks.passes.clear()
        run = built(config(data=synthetic(**LARGE), model=SMALLEST, norm=norm, train=FEW))
        run.evaluate()
        run.evaluate_last()
        seen.append({tuple(indices) for _, indices in looks.passes})
    assert seen[1] == seen[2] < seen[0]
    assert len(seen[1]) == 5
    # Before the end BatchNorm alone looks at a population: 6 chunks of 48 make 288.
    assert [len(indices) for indices in seen[0] - seen[1]] == [288]


@pytest.mark.parametrize("order", ["shuffled", "class-sorted"])
def test_companions_are_as_in_training(order: str, looks: Looks) -> None:
    large = config(data=synthetic(**LARGE, order=order), model=SMALLEST, train=FEW)
    run = built(large)
    dataset = inputs.load_dataset(large.data, lambda _: None)
    run.evaluate()
    run.evaluate_last()
    assert {len(indices) for _, indices in looks.passes} == {1056, 288, 144, 300, 70}
    for source, indices in looks.passes:
        labels = source.labels[indices].tolist()
        whole = [len(set(labels[i : i + 48])) for i in range(0, len(labels) - 47, 48)]
        if order == "shuffled":
            assert set(whole) == {3}
            # Some datasets are stored class by class: ascending indices would be sorted classes.
            assert sum(a > b for a, b in pairwise(indices)) > len(indices) / 3
        else:
            # Sorted within the first 144, up to 288 and up to 1,056: two borders in each at
            # most, and one where they meet.
            borders = sum(a != b for a, b in pairwise(labels))
            assert borders <= 8
            assert whole.count(1) >= len(whole) - 8
    assert dataset.train in [source for source, _ in looks.passes]
    # The negative control: what training itself does.
    batches = [len(set(run.batch_at(step)[1].tolist())) for step in range(27)]
    assert (set(batches) == {3}) == (order == "shuffled")


def pure(passes: list[list[int]]) -> float:
    """Which share of whole chunks of 16 hold one class."""
    chunks = [
        labels[start : start + 16] for labels in passes for start in range(0, len(labels) - 15, 16)
    ]
    return sum(len(set(chunk)) == 1 for chunk in chunks) / len(chunks)


def test_batches_sorted_by_class_are_composed_as_in_training(looks: Looks) -> None:
    """48 images in a row are sorted, and 16 share statistics: in training half of these chunks hold
    one class."""
    names = ("running_error", "gap_by_layer", "decomposition", "batch_noise")
    large = config(
        data=synthetic(**LARGE, order="class-sorted-batches"),
        model=SMALLEST,
        norm=schema.BatchNormConfig(batch_size=16),
        train=FEW,
        probes=schema.ProbesConfig.model_validate(dict.fromkeys(names, True)),
    )
    run = built(large)
    trained = pure([run.batch_at(step)[1].tolist() for step in range(27)])
    assert 0.3 < trained < 0.7
    looks.passes.clear()
    run.evaluate_last()
    evaluated = len(looks.passes)
    for probe in run.probes.values():
        probe.read(0)
    shown = [source.labels[indices].tolist() for source, indices in looks.passes]
    for labels in shown:
        for start in range(0, len(labels), 48):
            assert sorted(labels[start : start + 48]) == labels[start : start + 48]
    for passes in (shown[:evaluated], shown[evaluated:]):
        assert pure(passes) == pytest.approx(trained, abs=0.15)
    # The negative control: sorted as a whole, nearly all of them would.
    assert pure([sorted(labels) for labels in shown[:evaluated]]) > 0.8


def test_evaluations_are_not_augmented_and_do_not_move_the_run() -> None:
    plain, augmented = (
        built(config(data=synthetic(**LARGE, augment=augment), model=SMALLEST, train=FEW))
        for augment in ("none", "flip-crop")
    )
    assert not torch.equal(plain.batch_at(0)[0], augmented.batch_at(0)[0])
    facts = plain.evaluate()
    assert augmented.evaluate() == facts
    assert plain.evaluate() == facts


def test_statistics_are_shared_by_as_many_images_as_in_training() -> None:
    for norm, expected in (
        (schema.BatchNormConfig(), 8),
        (schema.BatchNormConfig(batch_size=2), 2),
        (schema.FrozenNormConfig(kind="frozen", batch_size=2), 2),
        (schema.NoNorm(kind="none"), 8),
        (schema.GroupNormConfig(kind="group", groups=2), 8),
    ):
        assert norm_batch_size(config(norm=norm)) == expected
