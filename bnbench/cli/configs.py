"""`bnbench configs …`: the shipped experiments, and checking your own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bnbench.cli.root import Config, Set, doing, examples, output, say, show
from bnbench.errors import ConfigError, UsageError
from bnbench.wording import printable

configs = typer.Typer(
    help="List, show, copy and check experiments.",
    epilog=examples("configs list", "configs copy quickstart"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@configs.command("list", epilog=examples("configs list", "configs list | grep claims"))
def configs_list() -> None:
    """List the shipped experiments."""
    from rich.table import Table

    from bnbench.config import files

    table = Table.grid(padding=(0, 2))
    for name, _, description in files.shipped():
        table.add_row(name, description)
    output.print(table)


@configs.command(
    "show", epilog=examples("configs show quickstart", "configs show default --resolved")
)
def configs_show(
    name: Config,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every key with its value (one run only).")
    ] = False,
) -> None:
    """Print an experiment's file."""
    from bnbench.config import files, loading, plans

    path = files.find_config(name)
    text = files.read_text(path)
    if resolved:
        text = files.dump(plans.expand(loading.load_experiment(path)).only())
    print(printable(text, keep="\n\t"), end="")


@configs.command(
    "copy",
    epilog=examples("configs copy quickstart", "configs copy claims/placement my-places.yaml"),
)
def configs_copy(
    name: Config,
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Default: the same name, in this folder.")
    ] = None,
) -> None:
    """Copy a shipped experiment, to change it."""
    from bnbench.config import files

    source = files.find_config(name)
    target = target or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UsageError(f"{target} already exists", do="name another file to copy to")
    try:
        target.write_text(files.read_text(source), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", do="name another file to copy to") from None
    show(f"copied to {target}: bnbench sweep {target}")


@configs.command(
    "check",
    epilog=examples(
        "configs check my-study.yaml", "configs check my-study.yaml --set profile=full"
    ),
)
def configs_check(config: Config, set_: Set = None) -> None:
    """Check a file as train and sweep do; say what it describes."""
    from bnbench.config import files, loading, plans

    path = files.find_config(config)
    plan = plans.expand(loading.load_experiment(path, loading.Overrides(set=tuple(set_ or ()))))
    with doing("loading PyTorch, and checking the networks"):
        from bnbench.assemble.check import check

        refused = check(plan.runs)
    if refused:
        raise ConfigError(plan.faults(refused))
    for line in (*plan.notes, *plan.warnings):
        say(line)
    runs = "1 run" if len(plan.runs) == 1 else f"{len(plan.runs)} runs ({plan.grid})"
    show(f"{path}: {runs}, no faults")


@configs.command("schema", epilog=examples("configs schema > schema.json", "configs schema | less"))
def configs_schema() -> None:
    """Print the JSON Schema of an experiment's file, for editors."""
    from bnbench.config import schema

    print(json.dumps(schema.json_schema(), indent=2, ensure_ascii=False))
