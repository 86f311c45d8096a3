"""Reports of what is not as usual: hostile texts, missing, damaged, diverged and too few runs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from math import inf, isfinite
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.report.reading import read_study
from bnbench.report.record import strict
from bnbench.report.study import Study
from bnbench.report.writing import make
from tests.report.invented import Told, invented
from tests.report.pages import (
    CLAIM,
    SETUPS,
    TUNED,
    WHEN,
    in_words,
    read_page,
    reported,
    shown,
    spread,
)
from tests.runs import SMALL_YAML, seal_again

USER_TEXT = "<script>alert(1)</script>&\"'$x^{$"


def test_what_users_write_is_text(tmp_path: Path) -> None:
    name = json.dumps(USER_TEXT)
    text = f"{SMALL_YAML}question: {name}\nsetups: {{{name}: {{}}, _$a$: {{norm: {{kind: none}}}}}}"
    claim = CLAIM.replace("BatchNorm is better", f"{USER_TEXT[:20]}").replace(
        "better: bn", f"better: {name}"
    )
    claim = claim.replace("worse: none", "worse: _$a$").replace("says: ", "says: ")
    folder = invented(
        tmp_path, f"{text}\nseeds: 2\n{claim}", lambda config: Told(test=0.5 + 0.01 * config.seed)
    )
    found = reported(folder)
    page = (folder.path / "report.html").read_text()
    assert "<script" not in page
    assert "alert(1)" in "".join(read_page(folder).words)
    assert USER_TEXT in read_page(folder).words
    for figure in found.figures:
        ET.fromstring(figure.svg)
    legend = next(each for each in found.figures if each.name == "accuracy-by-examples")
    texts = [
        each.text for each in ET.fromstring(legend.svg).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "_$a$" in texts
    assert max(map(len, shown(found.record).splitlines())) <= 80


def test_markup_of_rich_is_text(tmp_path: Path) -> None:
    text = f"{SMALL_YAML}question: '[bold]Why?[/bold]'\nsetups: {{'[red]a[/red]': {{}}}}"
    said = shown(in_words(invented(tmp_path, text, lambda _: Told())))
    assert "[bold]Why?[/bold]" in said
    assert "[red]a[/red]" in said


def test_without_claims_the_table_answers(tmp_path: Path) -> None:
    folder = invented(tmp_path, SMALL_YAML + TUNED, spread)
    best, tuned, mode = in_words(folder)["answer"]
    assert best.startswith(
        "bn (learning rate 0.1) did best: 65.0 [64.2, 65.8] % test accuracy (6 s"
    )
    assert "+10.0 points over none (learning rate 0.1) (95 % interval +10.0 … +10.0" in best
    assert tuned == "Each setup is at its best learning rate on validation."
    assert "eval mode is 2.0 points better than training mode" in mode


def noisy(config: schema.RunConfig) -> Told:
    """No difference but noise."""
    sign = 1 if (config.seed + (config.setup == "bn")) % 2 else -1
    return Told(test=0.5 + 0.05 * sign + 0.001 * (config.setup == "bn"))


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(1, "a direction, no more"), (4, "not decided"), (8, "not decided")],
)
def test_an_answer_within_noise_says_so(tmp_path: Path, seeds: int, words: str) -> None:
    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: {seeds}", noisy)
    record = in_words(folder)
    assert words in " ".join(record["answer"])
    kinds = [notice["kind"] for notice in record["notices"]]
    assert ("indicative" in kinds) == (seeds < 6)


def test_few_seeds_are_indicative_only(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        return Told(test=0.5 + 0.2 * (config.setup == "bn") + 0.001 * config.seed)

    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 4\n{CLAIM}", tell)
    record = in_words(folder)
    (claim,) = record["claims"]
    assert (claim["outcome"], claim["leaning"]) == ("inconclusive", "for")
    assert record["answer"][0].startswith("Not decided")
    assert "leans towards yes" in record["answer"][0]
    assert "leans towards yes" in " ".join(" ".join(read_page(folder).words).split())
    assert "Indicative only: 4 seeds; 6 are needed for a verdict." in shown(record)


@pytest.mark.parametrize(("claims", "said"), [(3, False), (4, True)])
def test_more_claims_need_more_seeds(tmp_path: Path, claims: int, said: bool) -> None:
    """Six seeds that agree give p = 2⁻⁶: after Holm's correction 3/64 or 4/64."""

    def tell(config: schema.RunConfig) -> Told:
        return Told(test=0.5 + 0.2 * (config.setup == "bn") + 0.001 * config.seed)

    heading, one = CLAIM.split("\n", 1)
    listed = "".join(one.replace("id: better", f"id: better-{n}") for n in range(claims))
    text = f"{SMALL_YAML}{SETUPS}profiles: {{quick: {{seeds: 6}}}}\n{heading}\n{listed}"
    record = in_words(invented(tmp_path, text, tell))
    indicative = "Indicative only: 6 seeds; 7 are needed to decide 4 claims."
    assert (indicative in shown(record)) == said
    outcomes = {claim["outcome"] for claim in record["claims"]}
    assert outcomes == {"inconclusive" if said else "supported"}


def only(*states: str) -> Callable[[schema.RunConfig], Told | None]:
    """Runs that end in these ways, one after the other."""
    made: list[str] = []

    def tell(_: schema.RunConfig) -> Told | None:
        made.append(states[len(made) % len(states)])
        return None if made[-1] == "new" else Told(curve=[0.2, 0.3], state=made[-1])

    return tell


@pytest.mark.parametrize(
    "states",
    [
        ("diverged",),
        ("failed",),
        ("interrupted",),
        ("completed", "new"),
        ("new", "new", "completed"),
        ("completed", "failed", "diverged", "interrupted", "new"),
    ],
)
def test_whatever_there_is_gives_a_report(tmp_path: Path, states: tuple[str, ...]) -> None:
    text = f"{SMALL_YAML}{SETUPS}axes: {{data.batch_size: [4, 8, 16]}}\nseeds: 2\n{CLAIM}"
    folder = invented(
        tmp_path,
        text.replace("    worse", "    at: {data.batch_size: 4}\n    worse"),
        only(*states),
    )
    record = reported(folder).record
    assert record["answer"]
    assert max(map(len, shown(record).splitlines())) <= 80
    done = sum(record["counts"][state] for state in ("completed", "diverged"))
    unfinished = [each["text"] for each in record["notices"] if each["kind"] == "unfinished"]
    assert bool(unfinished) == (done < 12)
    if unfinished:
        assert f"{done} of 12 runs have a result" in unfinished[0]
        assert unfinished[0] in "".join(read_page(folder).words)
    failed = [each["text"] for each in record["notices"] if each["kind"] == "failed"]
    assert bool(failed) == ("failed" in states)
    if failed:
        assert "it broke" in failed[0]
    for cell in record["cells"]:
        found = cell["metrics"]["test_accuracy"]
        assert (found["n"] if found else 0) == cell["completed"]


RESULT = {"state": "completed", "wall_seconds": 1}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("result.json", "{"),
        ("result.json", json.dumps(RESULT | {"val": {"running": 1}, "test": {"running": None}})),
        (
            "result.json",
            json.dumps(RESULT | {"val": {"running": {"accuracy": "x"}}, "test": {"running": {}}}),
        ),
        ("metrics.jsonl", "nonsense\n"),
        ("metrics.jsonl", '{"event": "eval"}\n'),
        ("manifest.json", "[]"),
        ("manifest.json", '{"versions": 3, "command": "x", "fingerprints": {}, "started": "y"}'),
    ],
)
def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, file: str, content: str) -> None:
    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 2", lambda _: Told(curve=[0.1, 0.5]))
    (folder.runs()[0].path / file).write_text(content)
    record = reported(folder).record
    assert len(record["runs"]) == 4
    assert sum(cell["metrics"]["test_accuracy"]["n"] for cell in record["cells"]) >= 3


def test_a_single_run_without_an_experiment_file(tmp_path: Path) -> None:
    folder = invented(tmp_path, SMALL_YAML, lambda _: Told(curve=[0.3, 0.6], test=0.55))
    folder.file.unlink()
    record = in_words(folder)
    assert "55.0 % test accuracy (1 seed)" in record["answer"][0]
    assert record["experiment"]["file"] is None
    assert "single runs of 1 configuration; 1 run, 1 completed." in read_page(folder).words


def test_the_page_says_which_values_are_of_one_setup(tmp_path: Path) -> None:
    own = "{a: {axes: {optim.lr: [0.1]}}, b: {norm: {kind: none}}}"
    text = f"{SMALL_YAML}setups: {own}\naxes: {{optim.lr: [0.2, 0.3, 0.4]}}\nseeds: 2\n"
    folder = invented(tmp_path, text, lambda _: Told())
    in_words(folder)
    said = "2 setups × 3 values of optim.lr (a: 1) × 2 seeds; 8 runs, 8 completed."  # 1 + 3, twice
    assert said in read_page(folder).words


def test_infinite_differences_are_arrows_and_medians(tmp_path: Path) -> None:
    claim = CLAIM.replace("test/running/accuracy", "val/running/examples_to_target")
    claim = claim.replace("smallest_effect: 1", "smallest_effect: 0.3\n    target: 0.5")
    claim = claim.replace("direction: up", "direction: down")

    def tell(config: schema.RunConfig) -> Told:
        there = config.setup == "bn" or config.seed > 2
        return Told(curve=[0.6, 0.6, 0.6] if there else [0.1, 0.1, 0.1], test=0.5)

    folder = invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 6\n{claim}", tell)
    found = reported(folder)
    (record,) = found.record["claims"]
    assert record["effect"]["mean"] is None
    assert record["effect"]["infinite"] == 3
    assert sorted(set(map(str, record["pairs"].values()))) == ["0.0", "inf"]
    page = " ".join(" ".join(read_page(folder).words).split())
    assert "3 of 6 infinite" in page
    assert "nan" not in page.lower().split()
    assert "infinite" in next(
        each.svg for each in found.figures if each.name == "paired-differences"
    )


def test_strict_json_has_no_infinity() -> None:
    found = strict({"a": [inf, -inf, float("nan"), 1.5], 3: (True, None, "x")})
    assert found == {"a": ["inf", "-inf", None, 1.5], "3": [True, None, "x"]}
    json.dumps(found, allow_nan=False)


def finite_numbers(value: Any) -> bool:
    match value:
        case dict():
            return all(map(finite_numbers, value.values()))
        case list():
            return all(map(finite_numbers, value))
        case float():
            return isfinite(value)
        case _:
            return True


def test_losses_that_were_not_finite_are_not_drawn_or_averaged(tmp_path: Path) -> None:
    folder = invented(
        tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 3", lambda _: Told(curve=[0.2, 0.3, 0.4])
    )
    for run in folder.runs():
        file = run.path / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if line["event"] == "eval" and line["examples"] == 2000:
                line |= {"loss": None, "finite": False}
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        seal_again(run)
    found = reported(folder)
    assert finite_numbers(found.record)
    loss = next(each for each in found.figures if each.name == "loss-by-examples")
    assert "nan" not in loss.svg.lower()


@pytest.mark.slow
def test_many_setups_and_cells_stay_bounded(tmp_path: Path) -> None:
    setups = ", ".join(
        f"setup-number-{number:02}: {{optim: {{momentum: 0.{number + 10}}}}}"
        for number in range(17)
    )
    text = (
        f"{SMALL_YAML}setups: {{{setups}}}\naxes: {{data.batch_size: [1, 2, 3, 4, 5, 6, 7, 8, 9]}}"
    )
    found = reported(invented(tmp_path, text, lambda _: Told(curve=[0.3, 0.5])))
    assert max(len(figure.svg) for figure in found.figures) < 700_000
    assert max(map(len, shown(found.record).splitlines())) <= 80
    assert "more cells are on the page" in shown(found.record)


def test_a_study_without_seeds_in_common(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told | None:
        return Told(test=0.5) if (config.seed == 0) == (config.setup == "bn") else None

    read: Study = read_study(invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 2\n{CLAIM}", tell))
    record = make(read, written=WHEN).record
    assert record["claims"][0]["effect"] is None
    assert record["claims"][0]["reasons"]
