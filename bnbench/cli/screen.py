"""Where commands print: results to standard output, everything else to standard error."""

from __future__ import annotations

from rich.console import Console

errors = Console(stderr=True)
output = Console()


def say(line: str) -> None:
    """Print to standard error, without markup."""
    errors.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_console(quiet: bool) -> Console:
    """The console of progress: the one of `say`, so that its lines appear above live ones."""
    return Console(stderr=True, quiet=True) if quiet else errors


def show(line: str) -> None:
    """Print to standard output, without markup."""
    output.print(line, markup=False, highlight=False, soft_wrap=True)
