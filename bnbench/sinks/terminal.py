"""The terminal's view of a run: a live line where there is a terminal, plain lines elsewhere."""

from __future__ import annotations

from math import isfinite
from typing import assert_never

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from bnbench.events import (
    Confusion,
    Diverged,
    Evaluation,
    Event,
    Finished,
    Gap,
    Histogram,
    Probe,
    Step,
)


def progress_bar(console: Console) -> Progress:
    """The live line of a single run, for `TerminalSink` to draw into; start it before."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[reading]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


def progress_lines(console: Console) -> Progress:
    """The live lines of runs that train side by side, for their `TerminalSink`s to draw into."""
    name = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    numbers = Column(no_wrap=True, justify="right")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}", table_column=numbers),
        TextColumn("{task.fields[reading]}", markup=False, table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
    )


class TerminalSink:
    """Shows one run while it trains: loss, accuracy, images/s, and how long it will take.

    In a terminal, `progress` shows a live line, which goes away at the end.
    """

    def __init__(
        self,
        console: Console,
        progress: Progress | None,
        *,
        name: str,
        total_steps: int,
        each_evaluation: bool,
    ) -> None:
        """`each_evaluation`: without a terminal, print a line at each evaluation."""
        self._console = console
        self._progress = progress
        self._name = name
        self._total_steps = total_steps
        self._each_evaluation = each_evaluation
        self._loss = float("nan")
        self._accuracy: float | None = None
        self._before: tuple[int, float] | None = None
        self._rate: float | None = None
        self._task: TaskID | None = None
        if progress is not None:
            self._task = progress.add_task(name, total=total_steps, reading="starting")

    def take(self, events: list[Event]) -> None:
        """Show events that belong together."""
        evaluated = False
        for event in events:
            match event:
                case Step():
                    self._loss = event.loss
                    self._measure_rate(event)
                case Evaluation():
                    if event.split == "val" and event.stats == "running":
                        self._accuracy = event.accuracy
                        evaluated = True
                case Gap() | Confusion() | Probe() | Histogram() | Finished():
                    pass
                case Diverged():
                    line = f"{self._name}: diverged at step {event.step}: {event.reason}"
                    self._console.print(line, markup=False, highlight=False)
                case _:
                    assert_never(event)
        step = events[0].step
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step, reading=self._reading())
        elif evaluated and self._each_evaluation:
            line = f"{self._name}: step {step}/{self._total_steps}  {self._reading()}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the live line away."""
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _measure_rate(self, step: Step) -> None:
        if self._before is not None:
            examples, seconds = self._before
            elapsed = step.train_seconds - seconds
            if elapsed > 0:
                self._rate = (step.examples - examples) / elapsed
        self._before = (step.examples, step.train_seconds)

    def _reading(self) -> str:
        parts = [f"loss {self._loss:.3f}" if isfinite(self._loss) else "loss –"]
        if self._accuracy is not None:
            parts.append(f"val {self._accuracy:.1%}")
        if self._rate is not None:
            parts.append(f"{self._rate:,.0f} img/s")
        return "  ".join(parts)
