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
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port; the next free one if it is taken.")
    ] = 6006,
    open_: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rewrite the event files and stop.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Start TensorBoard, with a link to a curated view."""
    from bnbench.store import choose_experiments

    chosen = choose_experiments(runs_dir, experiment)

    from bnbench.board.serve import rebuild_all, serve

    if rebuild:
        raise typer.Exit(0 if rebuild_all(chosen, show=show, warn=say) else 1)
    serve(chosen, runs_dir, port=port, browser=open_, show=show, warn=say)
