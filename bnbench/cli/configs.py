"""`bnbench configs …`: the shipped experiments, and checking your own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnbench.cli.root import Config, Set, doing, examples, output, require_new, say, show
from bnbench.errors import ConfigError, UsageError
from bnbench.wording import counted, printable

if TYPE_CHECKING:
    from bnbench.config.experiments import ExperimentConfig
    from bnbench.config.plans import Plan

SCHEMA = "bnbench.schema.json"
"""The JSON Schema next to a copied experiment."""

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
        Path | None, typer.Argument(metavar="FILE", help="Default: my-NAME.yaml, in this folder.")
    ] = None,
) -> None:
    """Copy a shipped experiment, to change it.

    The copy has a name of its own, so that its runs are stored in a folder of their own. The JSON
    Schema of this version comes along, with which editors complete keys.
    """
    from bnbench.config import files

    source = files.find_config(name)
    target = target or Path()
    if target.is_dir():
        target = target / f"my-{source.name}"
    schema = write_study(target, files.read_text(source), {})
    show(f"copied to {target}, with {schema} for editors\nbnbench sweep {target}")


def write_study(path: Path, text: str, code: Mapping[Path, str]) -> Path:
    """Write a study under the name of its file, Python files that it names, and beside it the JSON
    Schema, which it names wherever the two lie, and which is returned; one that is there may be of
    an earlier version, and is replaced. Raises UsageError; where one of the other files is there
    already, none is written."""
    from bnbench.config import files

    for each in (path, *code):
        require_new(each)
    schema = path.with_name(SCHEMA)
    texts = {path: files.renamed(text, path.stem, SCHEMA), **code, schema: _schema()}
    for each, content in texts.items():
        try:
            each.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{each}: {error.strerror}", do="name another file to write") from None
    return schema


@configs.command(
    "check",
    epilog=examples(
        "configs check my-study.yaml",
        "configs check my-study.yaml --set profile=full",
        "configs check my-study.yaml --register",
    ),
)
def configs_check(
    config: Config,
    set_: Set = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register",
            help="Before the first run: write into the file what is decided, with its hash; a "
            "report then says whether it is as registered, or what has changed.",
        ),
    ] = False,
) -> None:
    """Check a file as train and sweep do; say what it describes."""
    from bnbench.config import feasible, files, loading, loggers, plans

    path = files.find_config(config)
    overrides = loading.Overrides(set=tuple(set_ or ()))
    experiment = loading.load_experiment(path, overrides)
    plan = plans.expand(experiment)
    loggers.require(experiment)
    with doing("loading PyTorch, and checking the networks"):
        from bnbench.assemble.check import check
        from bnbench.report.promise import shortfalls

        refused = check(plan.runs)
    if refused:
        raise ConfigError(plan.faults(refused))
    missing = dict(shortfalls(experiment, plan))
    for line in (*plan.notes, *plan.warnings):
        say(line)
    if not all(map(feasible.known, plan.runs)):
        say("data.target: whether its images fit is checked once train or sweep has prepared them")
    if register:
        if others := [each for each in overrides.set if each.partition("=")[0] != "profile"]:
            raise UsageError(
                f"--register writes what the file says, and --set {others[0]} is not in it",
                do="write it into the file; --set profile=NAME alone may be given",
            )
        _register(path, experiment, plan)
    runs = counted(len(plan.runs), "run") + f" ({plan.grid})" * (len(plan.runs) > 1)
    runs = "at most " * bool(experiment.stages) + runs
    if not missing:
        show(f"{files.as_typed(path)}: {runs}, no faults")
        return
    show(f"{files.as_typed(path)}: {runs}, which train, but do not decide all that the file asks:")
    for what, do in missing.items():
        show(f"- {what}\n  {do}")


def _register(path: Path, experiment: ExperimentConfig, plan: Plan) -> None:
    """Write what is decided into the file, instead of what was registered before."""
    from datetime import UTC, datetime

    from bnbench.config import files, registration
    from bnbench.store import replace_content

    if not experiment.claims:
        raise UsageError(
            f"{files.as_typed(path)} has no claims to register", do="write `claims:` first"
        )
    lines = registration.decided(experiment, plan.runs)
    text = registration.registered(files.read_text(path), lines, datetime.now(UTC))
    replace_content(path.resolve(), text.encode())
    show(f"registered: {counted(len(experiment.claims), 'claim')}, {registration.digest(lines)}")
    before = experiment.registered
    if before is not None and before.sha256 != registration.digest(lines):
        say(f"this replaces what was registered on {before.date[:10]}: {before.sha256}")


@configs.command("schema", epilog=examples("configs schema > schema.json", "configs schema | less"))
def configs_schema() -> None:
    """Print the JSON Schema of an experiment's file, for editors."""
    print(_schema(), end="")


def _schema() -> str:
    from bnbench.config import schema

    return json.dumps(schema.json_schema(), indent=2, ensure_ascii=False) + "\n"
