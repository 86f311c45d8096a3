"""Where verbs print: results to standard output, all else to standard error."""

from __future__ import annotations

from rich.console import Console

errors = Console(stderr=True)
output = Console()


def say(line: str) -> None:
    """Print to standard error, as it is."""
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_console(quiet: bool) -> Console:
    """Where progress goes: the console that `say` uses, so that its lines stand above live ones."""
    return Console(stderr=True, quiet=True) if quiet else errors


def show(line: str) -> None:
    """Print to standard output, as it is."""
    output.print(line, markup=False, highlight=False, soft_wrap=True)
