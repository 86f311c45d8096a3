"""The command itself: errors without tracebacks, exit codes; where commands print, and the options
and arguments that several take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from bnbench import __version__
from bnbench.cli import completion
from bnbench.errors import BnbenchError, Interrupted, UsageError
from bnbench.wording import did_you_mean, listing, nearest, printable, shortened

if TYPE_CHECKING:  # slow to import, and --help does not need it
    from rich.status import Status

LINES = "\n\t"
"""What of all control characters a terminal may get from us as it is."""
UNBOUNDED = 10_000
"""Columns of what is no terminal."""


class PlainConsole(Console):
    """Shows every text as it is: markup and names of emoji mean nothing in it, and what a terminal
    would obey is written as escapes. Names, reasons and messages may be of someone else."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    @property
    def size(self) -> ConsoleDimensions:
        """As Rich has it, but that rows stay whole in files and pipes, unless COLUMNS is set. Rich
        renders to this size, and crops to it."""
        found = super().size
        bounded = self._width is not None or self.is_terminal or "COLUMNS" in environ
        return found if bounded else ConsoleDimensions(UNBOUNDED, found.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new

    def render_str(self, text: str, **options: Any) -> Text:
        """What becomes of text before its width is measured."""
        return super().render_str(printable(text, keep=LINES), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """What becomes of everything that is printed."""
        if isinstance(renderable, Text) and not renderable.plain.isprintable():
            renderable = renderable.copy()
            renderable.plain = printable(renderable.plain, keep=LINES)
        return super().render(renderable, options)


errors = PlainConsole(stderr=True)
output = PlainConsole()
_debug = False


def say(line: str) -> None:
    """Print to standard error."""
    errors.print(line, highlight=False, soft_wrap=True)


def show(line: str) -> None:
    """Print to standard output."""
    output.print(line, highlight=False, soft_wrap=True)


def progress_console(quiet: bool) -> Console:
    """The console of progress: the one of `say`, so that its lines appear above live ones."""
    return PlainConsole(stderr=True, quiet=True) if quiet else errors


@contextmanager
def doing(what: str, quiet: bool = False) -> Iterator[Status]:
    """Show at once what is being done, as long as it is done; in a terminal, nowhere else."""
    with progress_console(quiet).status(Text(f"{what} …")) as shown:
        shown.update(spinner="dots")  # now: the next turn of its thread may be that of an import
        yield shown


def _print_version(value: bool) -> None:
    if value:
        show(f"bnbench {__version__}")
        raise typer.Exit


CITATION = f"""\
@software{{bnbench, author = {{{{The bnbench authors}}}}, version = {{{__version__}}},
  title = {{bnbench: normalization setups in convolutional networks, compared}}, year = {{2026}}}}
"""
"""BibTeX; README.md shows the same."""


def _print_citation(value: bool) -> None:
    if value:
        print(CITATION, end="")
        raise typer.Exit


def number(option: str, help: str, *, least: int, most: int | None = None) -> Any:
    """An option that takes a whole number; an error says which there are, and the nearest."""

    def read(text: str | int) -> int:
        typed = shortened(str(text))
        try:
            value = int(typed)
        except ValueError:
            value = None
        allowed = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        if value is None:
            raise UsageError(f"{option} {typed}: a whole number {allowed} is wanted")
        nearest = max(least, value if most is None else min(value, most))
        if value != nearest:
            raise UsageError(
                f"{option} {typed}: it takes a number {allowed}", do=f"write {option} {nearest}"
            )
        return value

    return typer.Option(option, metavar="N", parser=read, help=help)


def one_of(option: str, names: Sequence[str], help: str) -> Any:
    """An option that takes one of these words; an error says which."""

    def read(text: str) -> str:
        if text not in names:
            meant = did_you_mean(nearest(text, names)) or f"take {listing(names)}"
            raise UsageError(f"{option} {shortened(text)}: there is no such {option[2:]}", do=meant)
        return text

    return typer.Option(option, metavar="|".join(names), parser=read, help=help)


def require_new(path: Path | None, option: str = "") -> None:
    """Raises UsageError where a file is there, or no folder to hold it. `option`: that names it."""
    by = f" with {option}" * bool(option)
    if path is not None and path.exists():
        raise UsageError(f"{path} already exists", do=f"name another file{by}")
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", do=f"name a file elsewhere{by}")


def write_page(path: Path, page: str, tell: Callable[[str], object]) -> None:
    """Write a new file, which `tell` names."""
    from bnbench.store import write_new

    write_new(path, page.encode(errors="replace"))
    tell(f"page: {path}")


def config(help: str) -> Any:
    """The argument CONFIG."""
    return typer.Argument(metavar="CONFIG", help=help, autocompletion=completion.configs)


Config = Annotated[str, config("A YAML file, or the name of a shipped experiment.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=completion.keys,
        help="Override a key, as in optim.lr=0.1; may be repeated. `bnbench explain KEY` says what "
        "one means.",
    ),
]
RunsDir = Annotated[
    Path,
    typer.Option(metavar="DIR", envvar="BNBENCH_RUNS_DIR", help="Where experiments are stored."),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="auto, cpu, mps, cuda:1, or cuda: a sweep takes all GPUs."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress: only results and errors.")]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart", help="Delete what is stored of the runs, and train them from the start."
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Continue although torch, the CPU, the number of threads or your own code changed.",
    ),
]
NoCustom = Annotated[
    bool, typer.Option("--no-custom", help="Refuse to run Python files that a configuration names.")
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error, of any command.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]
Citation = Annotated[
    bool,
    typer.Option(
        "--citation", callback=_print_citation, is_eager=True, help="Print BibTeX for a paper."
    ),
]


class Commands(TyperGroup):
    """Turns errors into lines and exit codes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line, or complete it."""
        with completion.whole_words():
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What stands before the command; a slip there is explained, too. `--debug` may stand
        anywhere. An empty argument, as an empty variable of the shell leaves, would be taken for
        the folder that one is in."""
        global _debug
        _debug = "--debug" in args
        args = [each for each in args if each != "--debug"]
        if "" in args:
            say("an argument is empty\n  leave it out, or look at the variable that stands there")
            raise typer.Exit(2)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            _explain(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command; README.md lists the exit codes."""
        try:
            return super().invoke(ctx)
        except (BnbenchError, Interrupted) as error:
            if _debug and isinstance(error, BnbenchError):
                raise
            say(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("stopped")
            raise typer.Exit(130) from None
        except BaseException as error:
            if _explain(error) or _debug:
                raise
            say(f"unexpected {type(error).__name__}: {error}\n  --debug shows where")
            raise typer.Exit(1) from None


def _explain(error: BaseException) -> bool:
    """Add a hint to an error of usage, which typer shows; whether it is one of typer's."""
    ours = type(error).__module__.partition(".")[0] not in ("typer", "click")
    if not ours and hasattr(error, "message"):
        from bnbench.cli import misses

        misses.explain(error)
    return not ours


def examples(*lines: str) -> str:
    """The end of a command's help: lines that can be typed as they are."""
    return "\n".join(("\b", "Examples:", *(f"  bnbench {line}" for line in lines)))


app = typer.Typer(
    cls=Commands,
    epilog=examples("sweep quickstart", "report quickstart", "explain optim.lr"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def bnbench(version: Version = False, citation: Citation = False, debug: Debug = False) -> None:
    """Compare normalization setups in convolutional networks."""
