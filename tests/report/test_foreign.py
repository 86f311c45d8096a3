"""`bnbench verdict`: the report's statistics on tables that others have written."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bnbench.config import schema
from tests.commands import Said, bnbench
from tests.processes import completed
from tests.report.invented import Told, invented

BN = [0.80, 0.81, 0.79, 0.80, 0.82, 0.80]
GN = [0.85, 0.855, 0.845, 0.86, 0.87, 0.86]
ASKED = ("--metric", "dice", "--better", "gn", "--worse", "bn", "--smallest-effect", "0.005")


@pytest.fixture(autouse=True)
def _in(own_folder: Path) -> None:
    """Every table is written into a folder of its own."""


def rows(bn: Sequence[Any] = BN, gn: Sequence[Any] = GN) -> list[dict[str, Any]]:
    """Long: a row for each run."""
    return [
        {"run": f"{name}-{seed}", "norm": name, "seed": seed, "dice": value}
        for name, values in (("bn", bn), ("gn", gn))
        for seed, value in enumerate(values)
    ]


def as_csv(table: Sequence[Mapping[str, Any]], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def ask(content: str | bytes, *asked: str, name: str = "results.csv") -> Said:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return bnbench("verdict", name, *(asked or ASKED))


def told(content: str | bytes, *asked: str, name: str = "results.csv") -> Any:
    """The record of a table."""
    said = ask(content, *(asked or ASKED), "--json", name=name)
    assert (said.code, said.err) == (0, "")
    return json.loads(said.out)


def test_interval_and_p_are_those_of_scipy() -> None:
    (claim,) = told(as_csv(rows()))["claims"]
    differences = np.subtract(GN, BN)
    low, high = stats.ttest_rel(GN, BN).confidence_interval()
    assert claim["effect"]["interval"] == pytest.approx([low, high])
    tossed = stats.permutation_test((differences - 0.005,), np.mean, permutation_type="samples",
                                    alternative="greater")  # fmt: skip
    assert claim["effect"]["p"] == pytest.approx(tossed.pvalue)
    assert claim["pairs"] == pytest.approx({str(n): each for n, each in enumerate(differences)})
    assert claim["outcome"] == "supported"


LONG = as_csv(rows())
WIDE = as_csv([{"seed": n, "bn": b, "gn": g} for n, (b, g) in enumerate(zip(BN, GN, strict=True))])
COMMAS = as_csv([each | {"dice": str(each["dice"]).replace(".", ",")} for each in rows()], ";")
NESTED = [{"params": {"norm": each["norm"], "seed": str(each["seed"])},
           "metrics": {"dice": each["dice"]}, "tags": ["a"]} for each in rows()]  # fmt: skip
FORMS: dict[str, str | bytes] = {
    "wide": WIDE,
    "bom": b"\xef\xbb\xbf" + LONG.encode(),
    "utf-16 with tabs": as_csv(rows(), "\t").encode("utf-16"),
    "decimal commas": COMMAS,
    "sep=;": f"sep=;\r\n{COMMAS}",
    "decimal commas, tabs": COMMAS.replace(";", "\t"),
    "decimal commas, quoted": as_csv(list(csv.DictReader(io.StringIO(COMMAS), delimiter=";"))),
    "blank lines, spaces": LONG.replace("\r\n", " \r\n\r\n"),
    "seeds as floats": LONG.replace(",1,", ",1.0,"),
    "seeds with zeros": LONG.replace(",1,", ",01,"),
    "latin-1": LONG.replace("run", "läufe").encode("cp1252"),
    "json lines": "\n".join(map(json.dumps, rows())),
    "json list": json.dumps(rows(), indent=1),
    "nested, as MLflow's": "\n".join(map(json.dumps, NESTED)),
    "capitals, empty columns and rows": COMMAS.replace("run;norm;seed;dice", "run;Norm;SEED;Dice")
    .replace("\r\n", ";;\r\n;;;;;\r\n"),
    "a line above": f"\r\n{LONG}",
    "prefixed columns, as MLflow's": LONG.replace("run,norm,seed,dice",
                                                  "run,params.norm,params.seed,metrics.dice"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(form: str) -> None:
    (wanted,), (found,) = told(LONG)["claims"], told(FORMS[form])["claims"]
    assert found == wanted


def test_thousands_of_columns() -> None:
    more = {f"layer{n}/mean": str(n) for n in range(5000)}
    assert told(as_csv([each | more for each in rows()]))["claims"] == told(LONG)["claims"]


def test_a_percentage_counts_in_points() -> None:
    (claim,) = told(
        as_csv([each | {"dice": f"{100 * each['dice']:.1f} %"} for each in rows()]),
        *("--metric", "dice", "--better", "gn", "--worse", "bn", "--smallest-effect", "0.5"),
    )["claims"]
    assert (claim["unit"], claim["outcome"]) == ("points", "supported")
    assert claim["effect"]["mean"] == pytest.approx(100 * np.subtract(GN, BN).mean())
    diverged = [each | {"dice": "85 %" if each["seed"] else "diverged"} for each in rows()]
    assert told(as_csv(diverged))["claims"][0]["unit"] == "points"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({5: None}, "bn: no dice for seed 5 (no row)"),
        ({5: {"dice": ""}}, "bn: no dice for seed 5 (line 7: empty)"),
        ({5: {"dice": "NaN"}}, "bn: no dice for seed 5 (line 7: NaN)"),
        ({5: {"dice": "#DIV/0!"}}, "bn: no dice for seed 5 (line 7: #DIV/0! is no number)"),
        ({5: {"dice": "1_0"}}, "bn: no dice for seed 5 (line 7: 1_0 is no number)"),
        ({5: {"seed": 4}}, "bn: several rows for seed 4 (lines 6, 7); keep one of each"),
        ({5: {"seed": ""}}, "bn: no seed in line 7"),
        ({11: {"seed": 7}}, "bn: no dice for seed 7 (no row)"),
        ({5: {"seed": "mean"}, 11: {"seed": "mean"}}, "seed mean: no number, as the others are"),
    ],
)
def test_what_is_missing_or_there_twice_is_said_and_nothing_decided(
    changed: Mapping[int, Mapping[str, Any] | None], reason: str
) -> None:
    table = [
        {**each, **(changed.get(n) or {})}
        for n, each in enumerate(rows())
        if changed.get(n, {}) is not None
    ]
    (claim,) = told(as_csv(table))["claims"]
    assert claim["outcome"] == "inconclusive"
    assert any(each.startswith(reason) for each in claim["reasons"]), claim["reasons"]


def test_what_would_decide_a_claim_is_said_and_does() -> None:
    table = [each for each in rows([*BN, 0.8], [*GN, 0.85]) if each["run"] != "gn-2"]
    (claim,) = told(as_csv(table))["claims"]
    assert claim["reasons"] == [
        "gn: no dice for seed 2 (no row): give what is missing (diverged, of a run that did); or, "
        "if it is missing by chance, leave seed 2 out of every setup"
    ]
    (claim,) = told(as_csv([each for each in table if each["seed"] != 2]))["claims"]
    assert claim["outcome"] == "supported"


@pytest.mark.parametrize("name", ["GN", "gn\u200b", "\uff47n"])  # as it is seen, gn
def test_setups_that_look_alike_are_told(name: str) -> None:
    table = [each | {"norm": name if each["run"] == "gn-5" else each["norm"]} for each in rows()]
    assert "another setup than gn." in str(told(as_csv(table))["notices"])


def test_rows_of_one_seed_are_to_be_named_by_a_column_that_groups_them() -> None:
    table = [{key: each[key] for key in ("norm", "seed", "dice")} for each in rows()]
    (claim,) = told(as_csv([*table, table[0] | {"dice": 0.1}]))["claims"]
    assert claim["reasons"][0] == "bn: several rows for seed 0 (lines 2, 14); keep one of each"
    epochs = [each | {"epoch": epoch, "dice": epoch} for epoch in (1, 2) for each in table]
    (claim,) = told(as_csv(epochs))["claims"]
    assert claim["reasons"][0].endswith("5 (lines 13, 25); name one, as in gn@epoch=1")


@pytest.mark.parametrize(
    ("more", "asked", "said"),
    [
        (lambda _: {}, (), None),
        (lambda run: {"lr": "0.1" if run["norm"] == "gn" else "0.01"}, (), "lr (0.1, 0.01)"),
        (lambda run: {"lr": "0.1", "loss": run["dice"] / 2, "kind": run["norm"]}, (), None),
        (lambda run: {"groups": 8 if run["norm"] == "gn" else ""}, (), None),  # its own key
        (lambda run: {"lr": "1" if run["norm"] == "gn" else "2"}, ("gn@lr=1", "bn@lr=2"), None),
    ],
)
def test_what_else_tells_the_sides_apart_is_said(
    more: Any, asked: tuple[str, ...], said: str | None
) -> None:
    better, worse = asked or ("gn", "bn")
    found = told(as_csv([each | more(each) for each in rows()]),
                 *("--metric", "dice", "--better", better, "--worse", worse))  # fmt: skip
    expected = f"gn and bn also differ in {said}: the verdict is about all of it together."
    notices = [each for each in found["notices"] if "also differ" in each]
    assert notices == ([expected] if said else [])
    assert found["claims"][0]["outcome"] == "supported"


def test_a_crashed_run_has_no_result_and_a_diverged_one_the_worst() -> None:
    table = [each | {"State": "finished"} for each in rows()]
    table[0]["State"] = "PRUNED"
    (claim,) = told(as_csv(table))["claims"]
    assert claim["reasons"][0].startswith("bn: no dice for seed 0 (line 2: the run is pruned): ")
    for way in ({"State": "diverged", "dice": ""}, {"dice": "Diverged"}, {"dice": "-Infinity"}):
        found = told(as_csv([table[0] | {"State": "finished"} | way, *table[1:]]))
        (claim,) = found["claims"]
        assert (claim["outcome"], claim["pairs"]["0"]) == ("supported", "inf")
        assert any("diverged" in each for each in found["notices"]) == ("nf" not in way["dice"])


STUDY = """\
setups:
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group}}
axes: {data.batch_size: [8, 32]}
seeds: 8
claims:
  - {id: a, says: s, metric: test/running/accuracy, better: bn@32, worse: gn@32, smallest_effect: 1}
  - {id: b, says: s, metric: test/running/accuracy, better: gn@8, worse: bn@8, smallest_effect: 1}
  - {id: c, says: s, metric: test/running/loss, better: bn@32, worse: gn@32, direction: down}
  - {id: d, says: s, metric: test/running/accuracy, better: [bn@32, bn@8], worse: [gn@32, gn@8]}
  - {id: e, says: s, metric: test/running/accuracy, better: gn, worse: bn,
     slope_over: data.batch_size, direction: two-sided}
  - {id: f, says: s, metric: test/batch/loss, log: true, at: {data.batch_size: 32}, better: bn,
     worse: gn, direction: down}
"""


def invented_run(config: schema.RunConfig) -> Told:
    noise = (config.seed * 7919 + len(config.setup) * 104729) % 1000 / 1000 * 0.03
    small = config.data.batch_size == 8 and config.setup == "bn"
    state = "diverged" if small and config.seed == 3 else "completed"
    return Told(test=0.6 + noise + 0.1 * (config.setup == "bn") - 0.2 * small, state=state)


def test_what_is_exported_of_our_own_runs_has_the_verdicts_of_the_report(own_folder: Path) -> None:
    folder = invented(own_folder, STUDY, invented_run)
    assert bnbench("report", "x").code == 0
    wanted = json.loads((folder.path / "report.json").read_text())["claims"]
    said = bnbench("verdict", "runs/x/report.csv", "--claims", "x.yaml", "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)["claims"]
    assert {each["outcome"] for each in wanted} >= {"supported", "inconclusive"}
    same = ("outcome", "unit", "leaning", "pairs", "superiority", "smallest_effect")
    for ours, theirs in zip(wanted, found, strict=True):
        assert {key: theirs[key] for key in same} == {key: ours[key] for key in same}
        assert theirs["effect"] == ours["effect"]
        assert [side["values"] for side in theirs["better"]] == [
            side["values"] for side in ours["better"]
        ]


def test_claims_of_a_file_are_one_family() -> None:
    claim = "{id: %s, says: s, metric: dice, better: gn, worse: bn}"
    listed = ", ".join(claim % each for each in "abc")
    Path("claims.yaml").write_text(f"claims: [{listed}]\n")
    found = told(LONG, "--claims", "claims.yaml")["claims"]
    alone = told(LONG)["claims"][0]["effect"]["p"]
    assert [each["effect"]["p_adjusted"] for each in found] == pytest.approx([3 * alone] * 3)


def test_the_page_stands_alone_and_escapes() -> None:
    table = as_csv([each | {"norm": each["norm"].replace("gn", "<b>gn")} for each in rows()])
    asked = [each.replace("gn", "<b>gn") for each in ASKED]
    said = ask(table, *asked, "--html", "page.html")
    assert (said.code, said.err) == (0, "")
    page = Path("page.html").read_text()
    assert "<svg" in page
    assert "supported" in page
    assert "&lt;b&gt;gn" in page
    assert "<b>" not in page
    assert ask(table, *asked, "--html", "page.html").code == 2, "nothing is overwritten"


@pytest.mark.parametrize("form", ["latex", "markdown"])
def test_the_table_for_a_paper(form: str) -> None:
    said = ask(LONG, *ASKED, "--format", form)
    assert (said.code, said.err) == (0, "")
    assert "supported" in said.out
    assert "+0.0533" in said.out


@pytest.mark.parametrize(
    ("content", "change", "words"),
    [
        (LONG, {"--metric": "dcie"}, "did you mean dice?"),
        (LONG, {"--better": "gnn"}, "better: gnn is not a setup\n  did you mean gn?"),
        (LONG, {"--better": "x", "--worse": "y"}, "no column holds x and y"),
        (LONG, {"--pair": "sed"}, "has no column sed\n  did you mean --pair seed?"),
        ("gn;bn\n1;2\n3;4\n", {"--pair": "gn"}, "--pair gn is a column that is compared"),
        (LONG, {"--setup": "nrom"}, "did you mean --setup norm?"),
        (LONG, {"--smallest-effect": "-1"}, "smallest_effect must be"),
        (LONG, {"--smallest-effect": "nan"}, "smallest_effect"),
        (LONG, {"--claims": "c.yaml"}, "are both given"),
        ("", {}, "is empty"),
        ("Results;;\nnorm;seed;dice\nbn;1;2\n", {}, "1: the heading names 1 of 3 columns"),
        ("norm,Seed 1,Seed 2\nbn,1,2\ngn,1,2\n", {}, "for each (Seed 1, Seed 2): transpose it"),
        ("setup,seeds,completed,dice\nbn,6,6,1\ngn,6,6,2\n", {}, "its rows are means over seeds"),
        (as_csv([each | {"batch": 8 if each["seed"] else 32} for each in rows()]),
         {"--better": "gn@32", "--worse": "bn@32"}, "several axes or none\n  write gn@batch=32"),
        ("norm,seed,dice\n", {}, "results.csv has a heading and no rows\n  a row for each run"),
        ("[]", {}, "results.csv has a heading and no rows"),
        ('{"norm": ["gn", "bn"], "dice": [1, 2]}', {}, "results.csv has no values but lists"),
        (LONG, {"--metric": "run"}, "run has no numbers, but gn-0, gn-1, gn-2"),
        (as_csv([each | {"dice": "good"} for each in rows()]), {}, "has no numbers, but good\n"),
        ("seed,gn,bn\n1,x,1\n", {}, "results.csv: gn has no numbers, but x\n  name a column"),
        (b"PK\x03\x04\0\0", {}, "save or export the table as CSV"),
        (b"a\0b", {}, "is no text"),
        (LONG + "x,bn,6,0,8\r\n", {}, "results.csv:14: the row has 5 values, and the heading 4"),
        ("{\n  \"a\": 1\n}", {}, "results.csv:1: this is no JSON object"),
        ("[" * 100_000, {}, "results.csv:1: this is no JSON object"),
        (LONG.replace("run,", "dice,"), {}, "has 2 columns of the name dice"),
        (COMMAS.replace("0,8\r", "0.8\r"), {}, "dice has 0,81 and 0.8"),
        (as_csv([each | {"norm2": each["norm"]} for each in rows()]), {}, ""),
        (as_csv([each | {"old": "bn" if each["seed"] else "gn"} for each in rows()]), {},
         "several columns hold bn and gn\n  --setup: norm, old"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_sentence(
    content: str | bytes, change: dict[str, str], words: str
) -> None:
    asked = dict(zip(ASKED[::2], ASKED[1::2], strict=True)) | change
    said = ask(content, *(part for pair in asked.items() for part in pair))
    assert words in said.err
    assert (said.code == 0) == (not words)
    assert "Traceback" not in said.err
    assert "unexpected" not in said.err


def test_faults_of_a_file_of_claims_have_their_lines() -> None:
    Path("claims.yaml").write_text(
        "claims:\n  - {id: a, says: s, metric: dice, beter: gn}\n  - 3\n"
    )
    said = ask(LONG, "--claims", "claims.yaml")
    assert said.code == 2
    assert "claims.yaml:2:36: claims[0].beter is not a key of claims[0]\n  did you" in said.err
    assert "claims.yaml:3:5: claims[1] must be a mapping, not 3" in said.err
    assert ask(LONG, "--claims", "nowhere.yaml").code == 2


def test_it_needs_no_torch() -> None:
    Path("results.csv").write_text(LONG)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from bnbench.cli import app; app({['verdict', 'results.csv', *ASKED]!r})"
    )
    completed(sys.executable, "-c", code)
