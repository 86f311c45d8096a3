"""The command itself: errors without tracebacks, exit codes, the options before a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bnbench import __version__
from bnbench.cli.options import Debug, debug_asked
from bnbench.cli.screen import say, show
from bnbench.errors import BnbenchError, Interrupted


class Commands(TyperGroup):
    """Turns errors into lines and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; README.md lists the exit codes."""
        try:
            return super().invoke(ctx)
        except BnbenchError as error:
            if debug_asked():
                raise
            say(str(error))
            raise typer.Exit(error.exit_code) from None
        except Interrupted as interrupted:
            say(str(interrupted))
            raise typer.Exit(interrupted.exit_code) from None
        except KeyboardInterrupt:
            say("stopped")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output has gone. That is no error, but nothing more can be printed.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            raise typer.Exit(0) from None
        except Exception as error:
            # Typer shows its own errors of usage itself.
            if debug_asked() or type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            say(f"unexpected {type(error).__name__}: {error}\n  --debug shows where")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    help="Compare normalization setups in convolutional networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(value: bool) -> None:
    if value:
        show(f"bnbench {__version__}")
        raise typer.Exit


@app.callback()
def bnbench(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Compare normalization setups in convolutional networks."""
