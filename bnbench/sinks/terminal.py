"""The terminal of `train` and `sweep`: live lines in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from bnbench import events
from bnbench.machine import BUSY, Pace

SLOWED = "slowed by other work or waiting"
"""Of speeds and times: the clock counts more than the thread has worked."""


class Screen:
    """A context in which runs show their progress; `view` makes the sink of one run.

    A single run has a live line with a bar. Several have a line each while they train, if there is
    room, and below them one for all; without a terminal, plain lines: what begins, how long it will
    take as soon as that is known, and each run that ends.
    """

    def __init__(self, console: Console, *, runs: int | None = None) -> None:
        """`runs`: how many there are in all; None: a single one."""
        self._console = console
        self.runs = runs
        self._estimated = False
        self.lines: Progress | None = None
        self._all: Progress | None = None
        self._live: Live | Progress | None = None
        self._preparing: TaskID | None = None  # the line before the single run's

    def __enter__(self) -> Self:
        if not self._console.is_terminal:
            return self
        if self.runs is None:
            self._live = self.lines = _progress_bar(self._console)
            self._preparing = self.lines.add_task("preparing", total=None, reading="")
        else:
            self.lines = _progress_lines(self._console)
            self._all = Progress(
                TextColumn("all runs"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[reading]}", markup=False),
                console=self._console,
                expand=True,
            )
            self._all.add_task("", total=self.runs, reading="loading PyTorch …")
            self._live = Live(
                Group(self.lines, self._all),
                console=self._console,
                transient=True,
                refresh_per_second=4,
            )
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def view(self, name: str, total_steps: int) -> TerminalSink:
        """What shows the run with this folder name."""
        if self.lines is not None and self._preparing is not None:
            self.lines.remove_task(self._preparing)
            self._preparing = None
        return TerminalSink(self, name.rsplit("_", 1)[0], total_steps)

    def advance(
        self, *, done: int, diverged: int, failed: int, seconds_left: float | None, busy: bool
    ) -> None:
        """Say how many of the runs are done, how they ended, and how long the rest will take.
        `busy`: the runs are slowed by other work, or wait."""
        reading = f"{done} of {self.runs}"
        if diverged:
            reading += f", {diverged} diverged"
        if failed:
            reading += f", {failed} failed"
        if seconds_left is not None:
            reading += f", {duration(seconds_left)} left" + f", {SLOWED}" * busy
        self._count(done, reading, estimated=bool(seconds_left))

    def _count(self, done: int, reading: str, *, estimated: bool) -> None:
        """Show it: of plain lines, the first that has an estimate."""
        if self._all is not None and self.lines is not None:
            rate = sum(task.fields["rate"] or 0.0 for task in self.lines.tasks)
            reading += f", {rate:,.0f} img/s" * bool(rate)
            self._all.update(self._all.task_ids[0], completed=done, reading=reading)
        elif estimated and not self._estimated:
            self._estimated = True
            self.print(reading)

    def print(self, line: str) -> None:
        """A line that stays, above the live ones."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def plain(self, line: str) -> None:
        """A line where there are no live ones, which say the same."""
        if self._all is None:
            self.print(line)


def duration(seconds: float) -> str:
    """For people: "40 s", "3 min", "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _progress_bar(console: Console) -> Progress:
    """The live line of a single run."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[reading]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


class _Slowest(Progress):
    """As many lines as a terminal has room for, beside that for all: of the runs that have done the
    least of their work."""

    def get_renderables(self) -> Iterable[RenderableType]:
        tasks = self.tasks
        room = max(1, self.console.height - 3) if tasks else 0  # rich asks before it has a console
        least = {task.id for task in sorted(tasks, key=lambda task: task.percentage)[:room]}
        yield self.make_tasks_table([task for task in tasks if task.id in least])
        if more := len(tasks) - len(least):
            yield f"and {more} more, which are ahead of these"


def _progress_lines(console: Console) -> Progress:
    """The live lines of runs that train at the same time."""
    name = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    numbers = Column(no_wrap=True, justify="right")
    return _Slowest(
        TextColumn("{task.description}", markup=False, table_column=name),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}", table_column=numbers),
        TextColumn("{task.fields[reading]}", markup=False, table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
    )


class TerminalSink:
    """Shows one run while it trains: loss, accuracy, images/s, and how long it will take.

    In a terminal this is a live line, which goes away at the end; elsewhere, of a single run, a
    line for each evaluation.
    """

    def __init__(self, screen: Screen, name: str, total_steps: int) -> None:
        self._screen, self._name, self._total_steps = screen, name, total_steps
        self._loss = float("nan")
        self._accuracy: float | None = None
        self._before: events.Moment | None = None
        self._rate: float | None = None
        self._pace, self._busy = Pace(), False
        self._lines = screen.lines
        if self._lines is not None:
            self._task = self._lines.add_task(
                name, total=total_steps, reading="starting", rate=None
            )

    def take(self, moment: events.Moment) -> None:
        evaluated = False
        for fact in moment.facts:
            match fact:
                case events.Step():
                    self._loss = fact.loss
                    self._measure_rate(moment)
                case events.Evaluation(split="train", stats="batch"):
                    # As in training, and newer than the last report where these are far apart.
                    self._loss = fact.loss
                    evaluated = True
                case events.Evaluation(split="val", stats="running"):
                    self._accuracy = fact.accuracy
                    evaluated = True
                case events.Diverged():
                    self._print(f"diverged at step {moment.step}: {fact.reason}")
                case _:
                    pass  # a line has no room for more
        if self._lines is not None:
            reading = self._reading()
            self._lines.update(self._task, completed=moment.step, reading=reading, rate=self._rate)
        elif evaluated and self._screen.runs is None:
            self._print(f"step {moment.step}/{self._total_steps}  {self._reading()}")

    def close(self) -> None:
        """Take the live line away."""
        if self._lines is not None:
            self._lines.remove_task(self._task)
            self._lines = None

    def _print(self, line: str) -> None:
        self._screen.print(f"{self._name}: {line}")

    def _measure_rate(self, moment: events.Moment) -> None:
        if self._before is not None:
            elapsed = moment.train_seconds - self._before.train_seconds
            if elapsed > 0:
                self._rate = (moment.examples - self._before.examples) / elapsed
        self._before = moment
        if self._screen.runs is None:  # of several, the runs are in other processes
            self._busy = self._pace.read() >= BUSY

    def _reading(self) -> str:
        parts = [f"loss {self._loss:.3f}" if isfinite(self._loss) else "loss –"]
        if self._accuracy is not None:
            parts.append(f"val {self._accuracy:.1%}")
        if self._rate is not None:
            parts.append(f"{self._rate:,.0f} img/s" + f", {SLOWED}" * self._busy)
        return "  ".join(parts)
