"""`bnbench diagnose`: what is wrong with a model in eval mode."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnbench import garbage
from bnbench.cli import root
from bnbench.cli.root import say, show
from bnbench.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from bnbench.diagnosis import Diagnosis, Score
    from bnbench.diagnosis.diagnose import Examination
    from bnbench.diagnosis.evidence import SavedModel
    from bnbench.diagnosis.result import Loader

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="path/to/file.py:function, which returns (model, loader), (model, train_loader, "
        "eval_loader), or a dict with model, train and, as needed, eval, forward, score; or the "
        "folder of a run.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Load this state dict, or a checkpoint with one, first."),
]
Fixed = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write a new checkpoint with recalibrated statistics to this file."
    ),
]
BatchSizes = Annotated[
    str | None,
    typer.Option(
        metavar="B1,B2,…", help="Also measure these. Default: the loader's and a large one."
    ),
]
ImageCount = Annotated[
    int, root.number("--images", "About how many images of each loader to use.", least=2)
]


def diagnose(
    target: Target,
    checkpoint: Weights = None,
    fix: Fixed = None,
    html: root.Html = None,
    batch_sizes: BatchSizes = None,
    images: ImageCount = 2048,
    device: root.Device = None,
    accept_changes: root.AcceptChanges = False,
    no_custom: root.NoCustom = False,
    quiet: root.Quiet = False,
    as_json: root.Json = False,
) -> None:
    """Say why a model is bad in eval mode, and fix it."""
    from bnbench.config import drafts

    sizes = None
    if batch_sizes is not None:
        sizes = drafts.batch_sizes(batch_sizes, least=2, option="--batch-sizes")
    root.require_new(fix, "--fix")
    root.require_new(html, "--html")
    hidden = quiet or as_json
    with root.doing("loading PyTorch", hidden):
        from bnbench.config.trust import Trust
        from bnbench.diagnosis import target as targets
        from bnbench.diagnosis.diagnose import examine
        from bnbench.runner.settings import Stop
    garbage.resume()
    with Stop().listening(), redirect_stdout(sys.stderr), root.doing("measuring", hidden) as shown:
        trust, wait = Trust(say, no_custom, accept_changes), (lambda _: None) if hidden else say
        found = targets.find_target(target, device, images, trust, wait)
        model, saved = found.model, found.checkpoint
        if checkpoint is not None:
            if saved is not None:
                raise UsageError(f"{target} already has a checkpoint", do="leave out --checkpoint")
            saved = targets.read_checkpoint(checkpoint)
            targets.load(found, saved)
        examined = examine(
            found, sizes, images, tell=lambda share: shown.update(f"measuring, {share:.0%} …")
        )
    result = examined.diagnosis
    for line in found.notes:
        say(f"note: {line}")
    _print(result, as_json)
    tell_where = say if as_json else show
    read_back: dict[Loader, Score] = {}
    try:
        if fix is not None:
            saved = saved or targets.of_model(model)
            with Stop().listening():
                read_back = _write_fixed(fix, saved, model, examined, hidden, tell_where)
    finally:
        if html is not None:
            from bnbench.diagnosis import page

            root.write_page(html, page.page(result, target, read_back), tell_where)
    if not as_json:
        _say_more(result, html)


def _print(diagnosis: Diagnosis, as_json: bool) -> None:
    from bnbench.diagnosis import words

    if as_json:
        print(json.dumps(diagnosis.as_record(), indent=2, ensure_ascii=False))
    else:
        for part in words.tables(diagnosis):
            root.output.print(part)


def _say_more(diagnosis: Diagnosis, html: Path | None) -> None:
    for each in diagnosis.findings[:1]:
        say(f"bnbench explain findings {each.name}: how it comes about, and what to do, in code")
    if html is None:
        say("--html FILE: all of this as a page with pictures")


def _write_fixed(
    path: Path,
    saved: SavedModel,
    model: nn.Module,
    examined: Examination,
    hidden: bool,
    tell: Callable[[str], object],
) -> dict[Loader, Score]:
    """What the file that is written gives, read back from it."""
    from bnbench.diagnosis import target, words
    from bnbench.store import write_new

    if not examined.diagnosis.population:
        raise UsageError(
            "there are no statistics to recalibrate: no BatchNorm layer keeps any, the weights are "
            "not finite, or it is not known what training does with them, see the notes",
            do="leave out --fix",
        )
    if examined.diagnosis.against:
        why, instead = examined.diagnosis.against
        raise UsageError(f"{path} is not written: {why}", do=instead)
    reading = root.doing("reading the fixed checkpoint back", hidden)
    with redirect_stdout(sys.stderr), reading:
        content = target.recalibrate(saved, model, examined.diagnosis)
        read_back = target.read_back(str(path), content, examined, model)
    write_new(path, content)
    tell(f"{path}: the checkpoint with recalibrated statistics, nothing else changed")
    tell(words.fixed(examined.diagnosis, read_back))
    return read_back
