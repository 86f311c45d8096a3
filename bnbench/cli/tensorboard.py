"""`bnbench tensorboard`: TensorBoard on the experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import Debug, RunsDir
from bnbench.cli.screen import say, show


def tensorboard(
    experiment: Annotated[str | None, typer.Argument(help="Default: all experiments.")] = None,
    runs_dir: RunsDir = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Busy: the next free one.")] = 6006,
    open_: Annotated[bool, typer.Option("--open", help="Open the browser, too.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Only write its files anew.")] = False,
    debug: Debug = False,
) -> None:
    """TensorBoard on this machine, with a link that opens a curated view; Ctrl-C ends it."""
    from bnbench.store import choose_experiments

    chosen = choose_experiments(runs_dir, experiment)

    from bnbench.board.serve import rebuild_all, serve

    if rebuild:
        raise typer.Exit(0 if rebuild_all(chosen, show=show, warn=say) else 1)
    serve(chosen, runs_dir, port=port, browser=open_, show=show, warn=say)
