"""The loop: evaluate and probe when due, one training step, report when due.

`train` yields moments and knows no file, no TensorBoard, no terminal. What it needs is in a `Run`,
which `assemble` puts together from a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from math import fsum, isfinite
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnbench import events, replay


@dataclass(slots=True)
class Position:
    """How far a run has come; with the weights and the optimizer, all that resuming needs.

    Everything else (order, augmentation, dropout, learning rate) is a function of the step.
    """

    step: int = 0
    examples: int = 0
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    probe_seconds: float = 0.0
    losses: list[tuple[Tensor | float, int]] = field(default_factory=list)
    """Minibatch losses since the last report, oldest first, each with the images seen by then;
    reading one waits for the device."""

    def read_losses(self) -> list[tuple[float, int]]:
        read = [(float(loss), examples) for loss, examples in self.losses]
        self.losses = list(read)
        return read


@dataclass(frozen=True, slots=True)
class Divergence:
    """When a run counts as diverged: a minibatch loss that is not finite, or above `limit` in a
    step after the first `grace_steps`. `criterion` names the limit for people."""

    limit: float
    grace_steps: int
    criterion: str

    def reason(self, step: int, loss: float) -> str | None:
        """Why the loss of this step (counted from 1) ends the run, or None."""
        if not isfinite(loss):
            return "loss is not finite"
        if step > self.grace_steps and loss > self.limit:
            return f"loss above {self.criterion}"
        return None


@dataclass(slots=True, kw_only=True)
class Probe:
    """An optional measurement that leaves no trace.

    `read_after`: after which steps it reads (0: before the first). `read` takes the number of steps
    done. `memory`: what it keeps from one reading for the next; part of the run's state.
    """

    read_after: frozenset[int]
    read: Callable[[int], Sequence[events.Reading | events.Histogram]]
    memory: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Run:
    """One training, ready to go: parts that know nothing of configuration.

    `replayable`: whether what a step computes is decided by tensors alone, so that it need not be
    traced through Python each time.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch_at: Callable[[int], tuple[Tensor, Tensor]]
    lr_at: Callable[[int], float]
    total_steps: int
    evaluate_after: frozenset[int]
    evaluate: Callable[[], list[events.Measurement]]
    evaluate_last: Callable[[], list[events.Measurement]]
    log_every: int
    divergence: Divergence
    autocast: Callable[[], AbstractContextManager[object]]
    reseed: Callable[[int], None]
    replayable: bool = False
    probes: dict[str, Probe] = field(default_factory=dict)
    position: Position = field(default_factory=Position)

    def state_dict(self) -> dict[str, Any]:
        """The state between two steps; what `load_state_dict` takes."""
        self.position.read_losses()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **asdict(self.position),
            "probes": {name: dict(probe.memory) for name, probe in self.probes.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; the run may have other probes by now.

        Raises an Exception where that cannot be.
        """
        own, remembered = self.state_dict(), state["probes"]
        own["probes"] = {name: own["probes"][name] for name in own["probes"] if name in remembered}
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])  # adds what a newer torch has
        at = Position(**{each.name: state[each.name] for each in fields(Position)})
        if not _alike(state | {"optimizer": self.optimizer.state_dict()}, own):
            raise TypeError("a value is of another kind than this run's")
        for parameter, kept in self.optimizer.state.items():
            for each in kept.values():
                number = isinstance(each, Tensor) and each.dim() == 0
                if not (each is None or number or _alike(each, parameter.detach())):
                    raise TypeError("the optimizer's state is of another kind than its parameters")
        seconds = (at.train_seconds, at.evaluation_seconds, at.probe_seconds)
        if not 0 <= at.step <= self.total_steps or not all(map(isfinite, seconds)):
            raise ValueError(f"no position among {self.total_steps:,} steps")
        at.losses = [(float(loss), int(images)) for loss, images in at.losses]
        self.position = at
        for name, probe in self.probes.items():
            probe.memory.clear()
            probe.memory.update(remembered.get(name, {}))


def _alike(kept: Any, own: Any) -> bool:
    """Whether what was stored can stand for what a run has: the same kinds, shapes and keys."""
    if isinstance(own, Tensor):
        if not isinstance(kept, Tensor):
            return False
        return (kept.shape, kept.dtype, kept.layout) == (own.shape, own.dtype, own.layout)
    if isinstance(own, dict):
        return isinstance(kept, dict) and all(
            key in kept and _alike(kept[key], value) for key, value in own.items()
        )
    if isinstance(own, list):
        return isinstance(kept, list) and all(map(_alike, kept, own))
    return type(kept) is type(own)


def train(run: Run) -> Generator[events.Moment | events.SafePoint, None, None]:
    """Train from where `run` stands to the end of its budget, stating moments on the way.

    Close the generator (`contextlib.closing`) when leaving early.
    """
    at = run.position
    update: replay.Update = partial(_update, run)
    if run.replayable:
        update = replay.Replayed(update, run.reseed)
    while True:
        facts: list[events.Fact] = []
        if at.step in run.evaluate_after:
            if diverged := _divergence(run):
                yield diverged
                return
            facts += _evaluate(run)
        facts += _probe(run)
        if at.step == run.total_steps:
            yield _moment(at, [*facts, events.Finished()])
            return
        if facts:
            yield _moment(at, facts)

        _step(run, update)

        if at.step % run.log_every == 0 or at.step == run.total_steps:
            if diverged := _divergence(run):
                yield diverged
                return
            yield _moment(at, [_report(run)])
        yield events.SafePoint(at.step)


def _moment(at: Position, facts: Iterable[events.Fact]) -> events.Moment:
    return events.Moment(
        step=at.step, examples=at.examples, train_seconds=at.train_seconds, facts=tuple(facts)
    )


def _step(run: Run, update: replay.Update) -> None:
    """One optimizer step on the clock."""
    at = run.position
    started = perf_counter()
    images, labels = run.batch_at(at.step)
    lr = run.lr_at(at.step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    loss = update(at.step, images, labels, lr)
    at.step += 1
    at.examples += len(labels)
    at.losses.append((loss, at.examples))
    at.train_seconds += perf_counter() - started


def _update(run: Run, step: int, images: Tensor, labels: Tensor, _lr: float) -> Tensor:
    """Forward pass, backward pass, and the optimizer's step at the rate that it has: the loss."""
    run.reseed(step)
    with run.autocast():
        loss = F.cross_entropy(run.model(images), labels)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    return loss.detach()


def _divergence(run: Run) -> events.Moment | None:
    """The first loss since the last report that ends the run, if one does."""
    at = run.position
    started = perf_counter()
    losses = at.read_losses()
    at.train_seconds += perf_counter() - started  # waiting for the device is training
    for step, (loss, examples) in enumerate(losses, start=at.step - len(losses) + 1):
        reason = run.divergence.reason(step, loss)
        if reason is not None:
            return events.Moment(
                step=step,
                examples=examples,
                train_seconds=at.train_seconds,
                facts=(events.Diverged(reason=reason),),
            )
    return None


def _report(run: Run) -> events.Step:
    at = run.position
    losses = [loss for loss, _ in at.read_losses()]
    at.losses = []
    return events.Step(
        loss=fsum(losses) / len(losses), loss_max=max(losses), lr=run.lr_at(at.step - 1)
    )


def _evaluate(run: Run) -> list[events.Measurement]:
    at = run.position
    measure = run.evaluate_last if at.step == run.total_steps else run.evaluate
    started = perf_counter()
    facts = measure()
    at.evaluation_seconds += perf_counter() - started
    return facts


def _probe(run: Run) -> list[events.Reading | events.Histogram]:
    at = run.position
    started = perf_counter()
    facts = [
        fact
        for probe in run.probes.values()
        if at.step in probe.read_after
        for fact in probe.read(at.step)
    ]
    at.probe_seconds += perf_counter() - started
    return facts
