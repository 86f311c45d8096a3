"""Which test images are right, bit by bit, against a loop over images."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace

import torch

from bnbench.events import Correctness, Evaluation
from bnbench.probes.statistics import Discrepancy
from tests.probes.discrepancy_twin import NORMS, network, one_by_one, pictures


def test_which_test_images_are_right_is_told_in_the_datasets_order() -> None:
    """The images come in another order than they are stored in, and a pass holds eight of them."""
    model, test = network(NORMS["batch"]), pictures("test", 21, seed=2)
    places = torch.randperm(21, generator=torch.Generator().manual_seed(3))
    sample = replace(test.sample(), places=places)
    facts = Discrepancy(norm_batch_size=4, pass_size=8).measure(
        model, population=pictures("train", 16).sample(), samples=[sample]
    )
    accuracy = {fact.stats: fact.accuracy for fact in facts if isinstance(fact, Evaluation)}
    found = {fact.stats: fact for fact in facts if isinstance(fact, Correctness)}
    assert list(found) == ["running", "batch", "population"]
    for kind, fact in found.items():
        written = "".join(f"{byte:08b}" for byte in b64decode(fact.bits))
        assert (fact.images, len(written)) == (21, 24)
        assert written[21:] == "000"
        assert written.count("1") / 21 == accuracy[kind]
    right = [int(scores.argmax()) for scores in one_by_one(model, test.x)]
    expected = dict(zip(places.tolist(), map(int.__eq__, right, test.y.tolist()), strict=True))
    bits = "".join(f"{byte:08b}" for byte in b64decode(found["running"].bits))
    assert [bit == "1" for bit in bits[:21]] == [expected[place] for place in range(21)]
    assert len(set(expected.values())) == 2
