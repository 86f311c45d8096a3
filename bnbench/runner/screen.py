"""The terminal of `train` and `sweep`: live lines in a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from bnbench.config import run_id, schema
from bnbench.sinks import TerminalSink, View, progress_bar, progress_lines


class Screen:
    """A context in which runs show themselves; `view` goes into `Settings.view`.

    A single run has a live line with a bar. Several have a line each while they train, below them
    one for all; without a terminal, a plain line for each run that ends.
    """

    def __init__(self, console: Console, *, runs: int | None = None) -> None:
        """`runs`: how many there are in all; None: a single one."""
        self._console = console
        self._runs = runs
        self._lines: Progress | None = None
        self._all: Progress | None = None
        self._all_task: TaskID | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._console.is_terminal:
            return self
        if self._runs is None:
            self._lines = progress_bar(self._console)
            self._lines.start()
            return self
        self._lines = progress_lines(self._console)
        self._all = Progress(
            TextColumn("all runs"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[reading]}", markup=False),
            console=self._console,
            expand=True,
        )
        self._all_task = self._all.add_task("", total=self._runs, reading="")
        self._live = Live(
            Group(self._lines, self._all),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._lines is not None:
            self._lines.stop()

    def view(self, config: schema.RunConfig, total_steps: int) -> View:
        """What shows this run."""
        return TerminalSink(
            self._console,
            self._lines,
            name=run_id(config).rsplit("_", 1)[0],
            total_steps=total_steps,
            each_evaluation=self._runs is None,
        )

    def advance(self, *, done: int, diverged: int, failed: int, seconds_left: float | None) -> None:
        """Say how many of the runs are done, how they ended, and how long the rest will take."""
        if self._all is None or self._all_task is None:
            return
        reading = f"{done} of {self._runs}"
        if diverged:
            reading += f", {diverged} diverged"
        if failed:
            reading += f", {failed} failed"
        if seconds_left is not None:
            reading += f", {duration(seconds_left)} left"
        self._all.update(self._all_task, completed=done, reading=reading)

    def print(self, line: str) -> None:
        """A line that stays, above the live ones."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def ended(self, line: str) -> None:
        """A run has ended: a plain line, where no live one counts it."""
        if self._live is None:
            self.print(line)


def duration(seconds: float) -> str:
    """For people: "40 s", "3 min", "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"
