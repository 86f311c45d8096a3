"""`bnbench diagnose`: what is wrong with a model in eval mode."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.options import Debug, Device, Json, Quiet
from bnbench.cli.screen import output, progress_console, say, show
from bnbench.errors import UsageError


def diagnose(
    target: Annotated[
        str,
        typer.Argument(
            help="path/to/file.py:function, which returns (model, loader) or (model, "
            "train_loader, eval_loader); or the folder of a run."
        ),
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Load this state dict, or a checkpoint with one, first."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a new checkpoint with recalibrated statistics to this file."
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="B1,B2,…", help="Also measure these. Default: the loader's and a large one."
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, help="About how many images of each loader to use.")
    ] = 2048,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say why a model is bad in eval mode, and fix it."""
    sizes = None if batch_sizes is None else _sizes(batch_sizes)
    if fix is not None and fix.exists():
        raise UsageError(f"{fix} already exists", do="name a new file with --fix")

    from bnbench.diagnosis import diagnose as diagnosed
    from bnbench.diagnosis.checkpoint import of_model, put_into, read_checkpoint, recalibrate
    from bnbench.diagnosis.target import find_target
    from bnbench.diagnosis.words import fixed, tables
    from bnbench.store import write_new

    with redirect_stdout(sys.stderr), progress_console(quiet).status("measuring"):
        found = find_target(target, device, images)
        saved = found.checkpoint
        if checkpoint is not None:
            if saved is not None:
                raise UsageError(f"{target} already has a checkpoint", do="leave out --checkpoint")
            saved = read_checkpoint(checkpoint)
            found.notes.extend(put_into(found.model, saved))
        diagnosis = diagnosed(
            found.model,
            found.loader,
            found.eval_loader,
            batch_sizes=sizes,
            images=images,
            autocast=found.autocast,
        )
    if fix is not None and not diagnosis.population:
        raise UsageError(
            "there are no statistics to recalibrate: no BatchNorm layer keeps any, or the weights "
            "are not finite",
            do="leave out --fix",
        )
    for line in found.notes:
        say(f"note: {line}")
    if as_json:
        print(json.dumps(diagnosis.as_record(), indent=2, ensure_ascii=False))
    else:
        for part in tables(diagnosis):
            output.print(part)
    if fix is not None:
        write_new(fix, recalibrate(saved or of_model(found.model), diagnosis))
        tell = say if as_json else show
        tell(f"{fix}: the checkpoint with recalibrated statistics, nothing else changed")
        tell(fixed(diagnosis))


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(each) for each in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 2:
        raise UsageError(
            f"--batch-sizes {text!r} are not batch sizes", do="give numbers, like 2,8,32"
        )
    return sizes
