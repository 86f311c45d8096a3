"""What Tab completes: experiments, runs, setups, keys with their values, names that are explained.

Completion is quiet: what cannot be read has no names. A shell may run what it is given (zsh does),
and names in folders may be of someone else: a name that is not plain is left to the shell's own
completion of files.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer import Context

PLAIN = re.compile(r"[A-Za-z0-9_./@%+=:,-]+")
"""Names that no shell takes for anything else."""

BREAKS = re.compile("\n([=:@]+)(?:\n|$)")
"""Where bash breaks words that are one here, by its COMP_WORDBREAKS; a line is a word."""

Find = Callable[[Context, str], Iterable[str]]


def _quiet(find: Find) -> Callable[[Context, str], list[str]]:
    """What is found that begins as what has been typed."""

    def complete(ctx: Context, incomplete: str) -> list[str]:
        try:
            found = sorted({*find(ctx, incomplete)})
        except Exception:  # there is nobody to tell: a line would stand in what is being typed
            return []
        return [each for each in found if each.startswith(incomplete) and PLAIN.fullmatch(each)]

    return complete


@_quiet
def configs(_: Context, incomplete: str) -> Iterator[str]:
    """Shipped experiments and their folders; YAML files of the folder that is typed."""
    from bnbench.config import files

    top = files.folder()
    for path in top.rglob("*.yaml"):
        yield path.relative_to(top).with_suffix("").as_posix()
    yield from (path.name for path in top.iterdir() if path.is_dir())
    before = incomplete.rpartition("/")[0]
    for suffix in (".yaml", ".yml"):
        yield from (str(Path(before, path.name)) for path in Path(before).glob(f"*{suffix}"))


@_quiet
def experiments(ctx: Context, _: str) -> Iterator[str]:
    from bnbench import store

    yield from (each.name for each in store.experiments(_runs_dir(ctx)))


@_quiet
def runs(ctx: Context, _: str) -> Iterator[str]:
    from bnbench import store

    yield from (run.name for each in store.experiments(_runs_dir(ctx)) for run in each.runs())


@_quiet
def setups(ctx: Context, _: str) -> Iterable[str]:
    """Setups of the experiment that has been typed."""
    from bnbench.config import files, yaml
    from bnbench.config.faults import Faults

    name = ctx.params.get("config") or ctx.args[0]
    source: Any = yaml.read(str(files.find_config(name)), "", Faults())
    return map(str, source.data["setups"])


@_quiet
def keys(_: Context, incomplete: str) -> Iterator[str]:
    """Keys of an experiment; of the only one that is meant, with the values that it may have."""
    from bnbench import explain
    from bnbench.config.schema import BLOCKS

    typed, given, _value = incomplete.partition("=")
    known = {f"{block}.{family.tag}" for block, family in BLOCKS.items() if family.tag}
    known |= {key.name for each in explain.entries() if each.topic not in ("claims", "findings")
              for key in each.keys}  # fmt: skip
    meant = [typed] if given else [key for key in known if key.startswith(typed)]
    if len(meant) > 1:
        yield from meant
        return
    for key in meant:
        # A key alone would be followed by a space, and not by its value.
        yield from (f"{key}={value}" for value in [*_values(key)] or [""])


def _values(key: str) -> Iterator[str]:
    """Values that a key may have: all of a choice, else its default."""
    from bnbench.config import files
    from bnbench.config.schema import BLOCKS

    block, _, name = key.partition(".")
    for kind, model in BLOCKS[block].models.items():
        info = model.model_fields.get(name)
        if name == BLOCKS[block].tag:
            yield str(kind)
        elif info is None:
            continue
        elif info.annotation is bool:
            yield from ("true", "false")
        elif get_origin(info.annotation) is Literal:
            yield from get_args(info.annotation)
        elif not info.is_required():
            yield files.inline(info.get_default(call_default_factory=True))


@_quiet
def explained(_: Context, __: str) -> Iterator[str]:
    """Topics, kinds, probes, metrics, findings and keys."""
    from bnbench import explain

    yield from explain.topics()
    for each in explain.entries():
        yield each.name
        yield from (key.name for key in each.keys)


def _runs_dir(ctx: Context) -> Path:
    return Path(ctx.params.get("runs_dir") or os.environ.get("BNBENCH_RUNS_DIR") or "runs")


@contextmanager
def whole_words() -> Iterator[None]:
    """Where bash asks: give back to `norm.kind=batch` its three words, which are one here; and
    answer with the last of them."""
    if os.environ.get("_BNBENCH_COMPLETE") != "complete_bash":
        yield
        return
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    joined = BREAKS.sub(r"\1", "\n".join(words)).split("\n")
    os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(len(joined) - 1)}
    # What bash keeps of the word that is being typed.
    kept = joined[-1] if BREAKS.fullmatch(f"\n{words[-1]}") else joined[-1].removesuffix(words[-1])
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            print(line.removeprefix(kept))
