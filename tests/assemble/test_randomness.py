"""What a seed decides: setups of one seed share images, order and weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from bnbench.assemble import inputs
from bnbench.assemble.inputs import generator
from bnbench.config import schema
from bnbench.train import Run
from tests.assemble.examples import (
    built,
    config,
    epoch,
    synthetic,
)


def test_no_two_purposes_or_seeds_share_random_numbers() -> None:
    """The streams themselves: torch's CPU generator keeps 32 bits of a seed."""
    purposes: list[tuple[object, ...]] = [
        *((word,) for word in ("split", "order", "augment", "init", "layers", "evaluation")),
        *((word, i) for word in ("order", "augment", "layers") for i in range(100)),
        *(("evaluation", word) for word in ("train", "val", "test", "population")),
        *(("init", f"stage{s}.block{b}.conv.weight") for s in (1, 2) for b in (1, 2)),
    ]
    seeds = range(12)
    firsts = Counter(
        tuple(torch.randint(2**62, (2,), generator=generator(seed, *purpose)).tolist())
        for seed in seeds
        for purpose in purposes
    )
    assert len(firsts) == len(purposes) * len(seeds)
    for values in zip(*firsts, strict=True):
        assert len(set(values)) == len(purposes) * len(seeds)


def test_seeds_are_derived_as_they_always_were() -> None:
    """Written down: another derivation would silently make every stored run another one."""
    # blake2b of "0/order/3", 8 bytes, halved; worked out with hashlib alone.
    assert inputs.derived(0, "order", 3) == 228_291_028_133_782_092
    draws = [torch.rand(4, generator=generator(0, "order", 3)) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


def test_dropout_draws_what_seed_and_step_say_and_nothing_else() -> None:
    run, other = built(config()), built(config(seed=1))

    def drawn(run: Run, step: int) -> list[float]:
        torch.manual_seed(len(draws))  # whatever was drawn before
        run.reseed(step)
        return torch.rand(3).tolist()

    draws: list[list[float]] = []
    for one, step in ((run, 0), (run, 1), (other, 0), (run, 0)):
        draws.append(drawn(one, step))
    assert draws[3] == draws[0]
    assert draws[1] != draws[0] != draws[2] != draws[1]


SETUPS: list[dict[str, Any]] = [
    {},
    {"norm": schema.NoNorm(kind="none")},
    {"norm": schema.BatchNormConfig(batch_size=2, placement="after")},
    {"norm": schema.GroupNormConfig(kind="group", groups=4)},
    {"optim": schema.AdamWConfig(kind="adamw")},
    {"model": schema.PlainModel(widths=(4, 8), blocks=1, activation="tanh", dropout=0.5)},
    {"data": synthetic(eval_batch_size=3)},
]


def test_setups_of_one_seed_share_images_order_and_weights() -> None:
    reference = built(config())
    images, labels = epoch(reference, 12)  # two epochs of six
    assert not torch.equal(images[:48], images[48:])
    weights = dict(reference.model.named_parameters())
    shared = 0
    for setup in SETUPS:
        torch.manual_seed(len(setup) + shared)
        run = built(config(**setup))
        theirs = epoch(run, 12)
        assert torch.equal(theirs[0], images)
        assert torch.equal(theirs[1], labels)
        for name, parameter in run.model.named_parameters():
            if name.endswith("conv.weight") or name == "head.weight":
                assert torch.equal(parameter, weights[name])
                shared += 1
    assert shared == 3 * len(SETUPS)


def test_batch_sizes_cut_one_order() -> None:
    images, _ = epoch(built(config()), 6)
    for batch_size, steps in ((2, 24), (4, 12), (16, 3), (48, 1)):
        found, _ = epoch(built(config(data=synthetic(batch_size=batch_size))), steps)
        assert torch.equal(found, images)
    # 48 = 4·11 + 4: only the dropped tail differs; the next epoch has an order of its own.
    found, _ = epoch(built(config(data=synthetic(batch_size=11))), 4)
    assert torch.equal(found, images[:44])


def test_other_seeds_have_other_images_orders_and_weights() -> None:
    runs = [built(config(seed=seed)) for seed in range(3)]
    kept = [{tuple(x.flatten().tolist()) for x in epoch(run, 6)[0]} for run in runs]
    firsts = [run.batch_at(0)[0] for run in runs]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert kept[one] != kept[other]  # another split …
        assert not torch.equal(firsts[one], firsts[other])
        for name in ("stage1.block1.conv.weight", "head.weight"):
            a, b = (runs[i].model.get_parameter(name) for i in (one, other))
            assert not (a == b).any()
