"""The terminal of `train` and `sweep`: live lines in a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import TaskID

from bnbench.build import Facts
from bnbench.config import RunConfig, run_id
from bnbench.sinks import TerminalSink, View, progress_bar


class Screen:
    """A context in which runs show themselves; `view` goes into `Settings.view`."""

    def __init__(self, console: Console, *, runs: int | None = None) -> None:
        """`runs`: how many will follow, for an overall line; None: a single run."""
        self.console = console
        self._runs = runs
        self._progress = progress_bar(console) if console.is_terminal else None
        self._overall: TaskID | None = None

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
            if self._runs is not None:
                self._overall = self._progress.add_task("all runs", total=self._runs, reading="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def view(self, config: RunConfig, facts: Facts) -> View:
        """What shows this run."""
        return TerminalSink(
            self.console,
            self._progress,
            name=run_id(config).rsplit("_", 1)[0],
            total_steps=facts.total_steps,
            each_evaluation=self._runs is None,
        )

    def advance(self, done: int, failed: int) -> None:
        """Say how many runs are done, and how many of them failed."""
        if self._progress is not None and self._overall is not None:
            reading = f"{done} of {self._runs}" + (f", {failed} failed" if failed else "")
            self._progress.update(self._overall, completed=done, reading=reading)

    def print(self, line: str) -> None:
        """A line that stays, above the live ones."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
