"""A run of fifteen tensors, in milliseconds: files do not mind who computes what is in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from math import inf

import torch
from torch import Tensor, nn

from bnbench.assemble import Facts
from bnbench.config import schema
from bnbench.events import Evaluation, Gap, Measurement, Reading
from bnbench.train import Divergence, Probe, Run

STEPS = 16


def build_stub(
    config: schema.RunConfig,
    device: torch.device,
    *,
    announce: Callable[[str], None] = lambda _: None,
) -> tuple[Run, Facts]:
    """Stands for `assemble.build_run`: weights, running statistics, momentum, dropout, a probe that
    remembers; all that resuming must restore."""
    del device, announce
    random = torch.Generator().manual_seed(config.seed)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Linear(3, 2)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=random)
    steps = config.train.steps or STEPS

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(1_000 * config.seed + step)
        return torch.randn(4, 1, 2, 2, generator=random), torch.arange(4) % 2

    def reseed(step: int) -> None:
        torch.default_generator.manual_seed(1_000 * config.seed + step)

    def evaluate() -> list[Measurement]:
        weight = float(next(model.parameters()).detach().sum())
        return [
            *(
                Evaluation(split=split, stats=stats, images=4, loss=weight, accuracy=0.5)
                for split in ("val", "test")
                for stats in ("running", "batch")
            ),
            Gap(split="val", images=4, loss=weight, accuracy=0.0, disagreement=0.25, kl=0.1),
        ]

    memory = {"readings": torch.zeros(())}

    def read(_: int) -> list[Reading]:
        memory["readings"] = memory["readings"] + 1
        count = memory["readings"].item()
        return [Reading(probe="stub", layer="network", name="readings", value=count)]

    run = Run(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        batch_at=batch_at,
        lr_at=lambda step: 0.1 / (1 + step),
        total_steps=steps,
        evaluate_after=frozenset({steps // 2, steps}),
        evaluate=evaluate,
        evaluate_last=evaluate,
        log_every=config.train.log_every,
        divergence=Divergence(limit=inf, grace_steps=0, criterion="never"),
        autocast=nullcontext,
        reseed=reseed,
        probes={"stub": Probe(read_after=frozenset({2, 5, steps}), read=read, memory=memory)},
    )
    return run, _facts(model, steps)


def _facts(model: nn.Module, steps: int) -> Facts:
    parameters = sum(each.numel() for each in model.parameters())
    return Facts(
        parameters=parameters,
        trainable_parameters=parameters,
        normalization_layers=1,
        train_images=4 * steps,
        validation_images=4,
        test_images=4,
        classes=("zero", "one"),
        steps_per_epoch=steps,
        total_steps=steps,
    )
