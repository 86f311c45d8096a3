"""`bnbench status`, `report`, `compare` and `tensorboard`: what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bnbench import garbage
from bnbench.cli import completion
from bnbench.cli.root import Json, RunsDir, doing, number, one_of, output, say, show
from bnbench.errors import StorageError, UsageError
from bnbench.wording import listing, printable

FIGURES = ("pdf", "png", "svg")


def _experiment(otherwise: str = "") -> Any:
    where = f"Its name below --runs-dir, its folder or its file{otherwise}."
    return typer.Argument(metavar="EXPERIMENT", autocompletion=completion.experiments, help=where)


Experiment = Annotated[str | None, _experiment("; default: all")]


Pictures = Annotated[
    str | None,
    typer.Option(
        "--figures", metavar="FORMAT,…", help="Write the figures as files, too: pdf, png, svg."
    ),
]
Study = Annotated[
    int | None, number("--study", "Which one, where the folder holds several studies.", least=1)
]
Form = Annotated[
    str | None,
    one_of(
        "--format",
        ("latex", "markdown", "csv"),
        "Print the table for a paper, with caption and verdicts.",
    ),
]


def status(
    experiment: Experiment = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """List every run and its state."""
    from bnbench.config.files import experiment_of
    from bnbench.report.status import as_record, experiments_table, runs_text
    from bnbench.store import experiments, find_experiment

    if experiment is not None:
        found = find_experiment(runs_dir, experiment, experiment_of(experiment))
        if as_json:
            print(json.dumps(as_record(found), indent=2))
        else:
            with doing("reading the runs"):
                lines = [runs_text(found, columns=output.width)]
                if (found.path / "slurm").exists():
                    from bnbench.sweeps.slurm.share import not_begun  # a quarter of a second

                    lines += not_begun(found)
            print("\n".join(lines))
        return
    there = experiments(runs_dir)
    if as_json:
        print(json.dumps([as_record(each) for each in there], indent=2))
    elif there:
        with doing("reading the runs"):
            table = experiments_table(there)
        output.print(table)
    else:
        # No error: before the first run there is no such folder.
        missing = "" if runs_dir.exists() else ", a folder that is not there"
        place = printable(str(runs_dir))
        show(f"no experiments in {place}{missing} yet: bnbench train default trains a first run")


def report(
    experiment: Annotated[str, _experiment()],
    runs_dir: RunsDir = Path("runs"),
    study: Study = None,
    as_json: Json = False,
    form: Form = None,
    as_methods: Annotated[
        bool,
        typer.Option("--methods", help="Print a paragraph on methods; --format latex escapes it."),
    ] = False,
    pictures: Pictures = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show tables and verdicts; write figures into report.html.

    The numbers are in report.json and report.csv, next to the page.
    """
    if as_json and (as_methods or form):
        raise UsageError("--json prints all of the report", do="leave out --format and --methods")
    if form == "csv" and as_methods:
        raise UsageError(
            "--methods is a paragraph, which CSV has no form for",
            do="leave --format out, or take latex or markdown",
        )
    formats = _formats(pictures)
    with doing("reading the runs", as_json):
        from bnbench.config.files import experiment_of
        from bnbench.report import paper, record, terminal, writing
        from bnbench.report.reading import choose_study, read_study
        from bnbench.store import find_experiment

        folder = find_experiment(runs_dir, experiment, experiment_of(experiment))
        found = read_study(choose_study(folder, study))
    unwritten: StorageError | None = None
    with doing("drawing the figures", as_json):
        made = writing.make(found, formats=formats)
        try:
            writing.write(found, made)
        except StorageError as error:  # a folder that can only be read has a table, too
            unwritten = error
    if as_json:
        print(record.as_json(made.record), end="")
    elif as_methods:
        methods = made.record["methods"]
        show(paper.PARAGRAPHS[form](methods) if form else methods)
    elif form is not None:
        print(paper.FORMS[form](made.record), end="")
    else:
        parts = [*terminal.terminal(made.record, columns=output.width)]
        for part in parts[: -terminal.PLACES] if unwritten else parts:
            output.print(part)
    if unwritten is not None:
        raise unwritten
    if formats:
        where = found.folder.file.parent / record.FIGURES
        each = ", ".join(f"*.{kind}" for kind in formats)
        tell = say if as_json or as_methods or form else show
        tell(f"figures: {where}/{each} ({len(made.figures)} of each)")
    if open_:
        typer.launch(str((found.folder.file.parent / writing.PAGE).resolve()))


def _formats(asked: str | None) -> list[str]:
    """Of figures; [] where none were asked for."""
    found = [] if asked is None else list(dict.fromkeys(asked.replace(" ", "").lower().split(",")))
    for each in found:
        if each not in FIGURES:
            raise UsageError(
                f"--figures {asked}: {each or 'nothing'} is no format of figures",
                do=f"take {listing(FIGURES)}, or several with commas between them",
            )
    return found


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            autocompletion=completion.runs,
            help="Folders of runs, ids, or their beginnings.",
        ),
    ],
    runs_dir: RunsDir = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare runs: what differs, and the results."""
    from bnbench.report.compare import compared, side_by_side

    with doing("reading the runs", as_json):
        record = compared(runs, runs_dir)
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        for part in side_by_side(record, columns=output.width):
            output.print(part)


def tensorboard(
    experiment: Experiment = None,
    runs_dir: RunsDir = Path("runs"),
    port: Annotated[
        int, number("--port", "Port; the next free one if it is taken.", least=1, most=65535)
    ] = 6006,
    open_: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rewrite the event files and stop.")
    ] = False,
) -> None:
    """Start TensorBoard, with a link to a prepared view."""
    from bnbench.config.files import experiment_of
    from bnbench.store import choose_experiments

    called = experiment_of(experiment) if experiment else None
    chosen = choose_experiments(runs_dir, experiment, called)
    with doing("loading TensorBoard, and reading the runs") as now:
        from bnbench.board.rebuild import rebuild_all
        from bnbench.board.serve import serve

        def tell(line: str) -> None:
            now.stop()
            show(line)

        if rebuild:
            raise typer.Exit(0 if rebuild_all(chosen, show=tell, warn=say) else 1)
        garbage.resume()
        serve(chosen, runs_dir, port=port, browser=open_, show=tell, warn=say)
