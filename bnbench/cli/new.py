"""`bnbench new`: a study from a few questions, or from options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, TypeVar

import typer

from bnbench.cli.configs import SCHEMA, configs_check, write_study
from bnbench.cli.root import require_new, say, show
from bnbench.errors import BnbenchError, UsageError
from bnbench.wording import listing, slug

T = TypeVar("T")

Compare = Annotated[
    str | None,
    typer.Option(
        metavar="NORM,NORM",
        help="As `bnbench explain norms` lists them; own: of a class that you write. One alone is "
        "compared to itself at another batch size.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="KIND", help="plain, resnet, mlp, torchvision:NAME, timm:NAME, or own."),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATASET", help="fashion-mnist-12k, …, a folder with train/ and test/, or own."
    ),
]
BatchSizes = Annotated[
    str | None,
    typer.Option(
        metavar="N,N",
        help="Of a step of training; where batch is compared to itself, images that share "
        "statistics. Default: those of --better and --worse, or 4,32.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="The most; six or more are added until the claim is decided. Default: 24.",
    ),
]
Better = Annotated[
    str | None,
    typer.Option(
        metavar="NORM[@N]",
        help="What is claimed to be more accurate; batch@32: batch at batch size 32. Default: at "
        "the smallest.",
    ),
]
Worse = Annotated[str | None, typer.Option(metavar="NORM[@N]", help="What it is compared to.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing: take the defaults.")]


def new(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; no file is overwritten.")
    ] = Path("my-study.yaml"),
    compare: Compare = None,
    model: Model = None,
    data: Data = None,
    batch_sizes: BatchSizes = None,
    seeds: Seeds = None,
    better: Better = None,
    worse: Worse = None,
    yes: Yes = False,
) -> None:
    """Write a study to start from, with a claim.

    In a terminal, what is not given is asked for; elsewhere it has its default. Of what is your
    own, a Python file with an example that trains is written beside the study.
    """
    from bnbench.config import drafts
    from bnbench.stats.looks import MOST  # SciPy takes a while

    path = file if file.suffix in (".yaml", ".yml") else Path(f"{file}.yaml")
    require_new(path)
    if path.name.startswith(".") or not slug(path.stem):
        raise UsageError(f"{path} leaves no name for a folder", do="use a letter or a digit")
    if better is not None and better == worse:
        raise UsageError(f"--better and --worse are both {better}", do="name two setups")
    asking = not yes and sys.stdin.isatty() and sys.stdout.isatty()

    def answer(
        given: str | None, question: str, among: list[str], default: str, read: Callable[[str], T]
    ) -> T:
        words = f"{question} ({listing(among)})" if among else question
        return _asked(words, default, read) if asking and given is None else read(given or default)

    kinds = drafts.norms()
    norms = answer(compare, "Which norms are compared", kinds, "batch,group", drafts.compared)
    network = answer(model, "Which network", drafts.models(), "plain", drafts.model)
    images = [*drafts.datasets(), "a folder"]
    dataset = answer(data, "Which images", images, "fashion-mnist-12k", drafts.data)
    read_sizes = partial(drafts.batch_sizes, compared=norms)
    claimed = drafts.sizes_named(better, worse)
    sizes = answer(batch_sizes, "Batch sizes", [], claimed, read_sizes)
    most = "Seeds at most, which are added until the claim is decided"
    looks = answer(seeds, most, [], str(MOST), _looks)
    arms = drafts.arms(norms, sizes)
    other = None if worse is None else drafts.one_of(arms)(worse)
    others = [each for each in arms if each != other]
    claim, default = "Which is claimed to be more accurate", arms[other != arms[1]]
    best = answer(better, claim, others, default, drafts.one_of(others))
    others = [each for each in arms if each != best]
    least = answer(worse, "Compared to", others, others[0], drafts.one_of(others))
    draft = drafts.Draft(norms, network, dataset, sizes, looks, best, least)

    text, code = draft.texts(path)
    schema = _written(path, text, code)
    show(f"written: {', '.join(map(str, (path, *code)))}, with {schema} for editors")
    for each in code:
        show(f"{each} is an example that trains: put in your own")
    show(f"bnbench sweep {quote(str(path))}    # with --dry-run: how long it takes, no more")


def _looks(text: str) -> tuple[int, ...]:
    """Numbers of seeds at which one claim is judged, up to the given one. Raises UsageError."""
    from bnbench.config import drafts
    from bnbench.stats.looks import planned
    from bnbench.stats.verdict import SEEDS_FOR_A_VERDICT

    most = drafts.seeds(text)
    return planned(["up"], most) if most >= SEEDS_FOR_A_VERDICT else (most,)


def _written(path: Path, text: str, code: Mapping[Path, str]) -> Path:
    """Write the study and check it; the schema beside it. Raises BnbenchError, and nothing is
    written, where it has faults."""
    there = path.with_name(SCHEMA).exists()
    schema = write_study(path, text, code)
    try:
        configs_check(str(path))
    except BnbenchError:
        for each in (path, *code, *([] if there else [schema])):
            each.unlink()
        raise
    return schema


def _asked(question: str, default: str, read: Callable[[str], T]) -> T:
    """The answer to a question, which is put again until it can be read."""
    while True:
        try:
            return read(typer.prompt(question, default))
        except UsageError as error:
            say(str(error))
        except typer.Abort:  # Ctrl-C or Ctrl-D
            show("")
            raise KeyboardInterrupt from None
