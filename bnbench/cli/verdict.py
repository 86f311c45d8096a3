"""`bnbench verdict`: the report's statistics on anybody's results."""

from __future__ import annotations

from typing import Annotated

import typer

from bnbench.cli import root
from bnbench.errors import UsageError

Metric = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="What is compared; of a wide table, its name.")
]
Better = Annotated[
    str | None,
    typer.Option(metavar="SETUP", help="What the claim favours; gn@batch=32 of several rows."),
]
Worse = Annotated[str | None, typer.Option(metavar="SETUP", help="Its opponent; default: zero.")]
Pair = Annotated[str, typer.Option(metavar="COLUMN", help="What pairs the rows of two setups.")]
Setup = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="What tells setups apart; default: where their names are."),
]
Smallest = Annotated[
    float | None,
    typer.Option(metavar="X", help="In the metric's unit: less does not matter. Default: 0."),
]
Direction = Annotated[
    str | None,
    root.one_of(
        "--direction",
        ("up", "down", "two-sided"),
        "Whether better has more of the metric (default), less, or differs.",
    ),
]
Claims = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Several claims, one family: YAML with claims:, as in a study."
    ),
]
Form = Annotated[
    str | None, root.one_of("--format", ("latex", "markdown"), "Print the table for a paper.")
]


def verdict(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSON lines.")],
    metric: Metric = None,
    better: Better = None,
    worse: Worse = None,
    pair: Pair = "seed",
    setup: Setup = None,
    smallest_effect: Smallest = None,
    direction: Direction = None,
    claims: Claims = None,
    html: root.Html = None,
    as_json: root.Json = False,
    form: Form = None,
) -> None:
    """Judge claims about anybody's results: the report's verdicts.

    Long tables have a row for each run, wide ones a column for each setup.
    """
    asked = {"metric": metric, "better": better, "worse": worse, "direction": direction,
             "smallest_effect": smallest_effect}  # fmt: skip
    given = {key: value for key, value in asked.items() if value is not None}
    if claims is not None and given:
        named = next(iter(given)).replace("_", "-")
        raise UsageError(f"--claims and --{named} are both given", do="the file says it all")
    if claims is None and not {"metric", "better"} <= given.keys():
        raise UsageError(
            "it is not said what to judge",
            do="give --metric COLUMN, --better SETUP and --worse SETUP, or --claims FILE",
        )
    if as_json and form:
        raise UsageError("--json prints everything", do="leave out --format")
    root.require_new(html, "--html")
    with root.doing("judging", as_json):
        from bnbench.config.claims import claim_of_arguments, claims_of_file
        from bnbench.report import foreign, paper, record, table, terminal, writing

        source = claim_of_arguments(given) if claims is None else claims_of_file(claims)
        made = foreign.judged_table(table.read(file), source, pair=pair, setup=setup)
    if as_json:
        print(record.as_json(made.record), end="")
    elif form is not None:
        print(paper.TABLES[form](paper.claims_table("claims", made.record["claims"])), end="")
    else:
        for line in terminal.verdicts(made.record, columns=root.output.width):
            root.output.print(line)
    if html is not None:
        tell = root.say if as_json or form else root.show
        root.write_page(html, writing.verdict_page(made), tell)
