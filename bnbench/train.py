"""The loop: evaluate and probe when due, one training step, report when due.

`train` yields facts and knows no file, no TensorBoard, no terminal. What it needs is in a `Run`,
which `assemble` puts together from a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import fsum, isfinite
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnbench.events import Diverged, Event, Finished, Measurement, Reading, SafePoint, Step
from bnbench.probes import Where

Evaluate = Callable[[Where], list[Measurement]]
Read = Callable[[Where], Sequence[Reading]]


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
        """The losses as numbers."""
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
class Guest:
    """A probe of a run: after which steps it reads (0: before the first), and how.

    `memory`: what it keeps from one reading for the next; part of the run's state.
    """

    read_after: frozenset[int]
    read: Read
    memory: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Run:
    """One training, ready to go: parts that know nothing of configuration."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch_at: Callable[[int], tuple[Tensor, Tensor]]
    lr_at: Callable[[int], float]
    total_steps: int
    evaluate_after: frozenset[int]
    evaluate: Evaluate
    evaluate_last: Evaluate
    log_every: int
    divergence: Divergence
    autocast: Callable[[], AbstractContextManager[object]]
    reseed: Callable[[int], None]
    guests: dict[str, Guest] = field(default_factory=dict)
    position: Position = field(default_factory=Position)

    def state_dict(self) -> dict[str, Any]:
        """The state between two steps; what `load_state_dict` takes."""
        at = self.position
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": at.step,
            "examples": at.examples,
            "train_seconds": at.train_seconds,
            "evaluation_seconds": at.evaluation_seconds,
            "probe_seconds": at.probe_seconds,
            "losses": at.read_losses(),
            "probes": {name: dict(guest.memory) for name, guest in self.guests.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; its probes may have been others."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.position = Position(
            step=state["step"],
            examples=state["examples"],
            train_seconds=state["train_seconds"],
            evaluation_seconds=state["evaluation_seconds"],
            probe_seconds=state["probe_seconds"],
            losses=list(state["losses"]),
        )
        remembered = state["probes"]
        for name, guest in self.guests.items():
            guest.memory.clear()
            guest.memory.update(remembered.get(name, {}))


def train(run: Run) -> Generator[Event | SafePoint, None, None]:
    """Train from where `run` stands to the end of its budget, stating facts on the way.

    Close the generator (`contextlib.closing`) when leaving early.
    """
    at = run.position
    while True:
        if at.step in run.evaluate_after:
            diverged = _divergence(run)
            if diverged is not None:
                yield diverged
                return
            yield from _evaluate(run)
        yield from _probe(run)
        if at.step == run.total_steps:
            yield Finished(**_where(at))
            return

        _step(run)

        if at.step % run.log_every == 0 or at.step == run.total_steps:
            diverged = _divergence(run)
            if diverged is not None:
                yield diverged
                return
            yield _report(run)
        yield SafePoint(at.step)


def _step(run: Run) -> None:
    """One optimizer step on the clock."""
    at = run.position
    started = perf_counter()
    run.reseed(at.step)
    images, labels = run.batch_at(at.step)
    with run.autocast():
        loss = F.cross_entropy(run.model(images), labels)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for group in run.optimizer.param_groups:
        group["lr"] = run.lr_at(at.step)
    run.optimizer.step()
    at.step += 1
    at.examples += len(labels)
    at.losses.append((loss.detach(), at.examples))
    at.train_seconds += perf_counter() - started


def _divergence(run: Run) -> Diverged | None:
    """Read the losses since the last report; the first that ends the run, if any does."""
    at = run.position
    started = perf_counter()
    losses = at.read_losses()
    at.train_seconds += perf_counter() - started  # waiting for the device is training
    for step, (loss, examples) in enumerate(losses, start=at.step - len(losses) + 1):
        reason = run.divergence.reason(step, loss)
        if reason is not None:
            seconds = at.train_seconds
            return Diverged(step=step, examples=examples, train_seconds=seconds, reason=reason)
    return None


def _report(run: Run) -> Step:
    at = run.position
    losses = [loss for loss, _ in at.read_losses()]
    at.losses = []
    return Step(
        loss=fsum(losses) / len(losses),
        loss_max=max(losses),
        lr=run.lr_at(at.step - 1),
        **_where(at),
    )


def _evaluate(run: Run) -> list[Measurement]:
    at = run.position
    measure = run.evaluate_last if at.step == run.total_steps else run.evaluate
    started = perf_counter()
    facts = measure(_where(at))
    at.evaluation_seconds += perf_counter() - started
    return facts


def _probe(run: Run) -> list[Reading]:
    at = run.position
    started = perf_counter()
    facts = [
        fact
        for guest in run.guests.values()
        if at.step in guest.read_after
        for fact in guest.read(_where(at))
    ]
    at.probe_seconds += perf_counter() - started
    return facts


def _where(at: Position) -> Where:
    return Where(step=at.step, examples=at.examples, train_seconds=at.train_seconds)
