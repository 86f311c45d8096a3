"""The tables and the paragraph for a paper: escaped, and with the numbers of the terminal."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bnbench.config import feasible, schema
from bnbench.report import paper, words
from bnbench.report.paper import latex_text, markdown_text
from bnbench.report.reading import read_study
from bnbench.store import Record
from tests.commands import bnbench
from tests.processes import completed
from tests.report.invented import Told, invented, recorded, undrawn

HOSTILE = r"""50 % & more_under $x$ {a} ^ ~ \ "q" <b> #1 -- '' `x` [y] *z* | γ ± − … !`"""
STUDY = f"""
question: {json.dumps(HOSTILE)}
data: {{dataset: synthetic, train_images: 400, validation_size: 100, test_images: 100}}
train: {{epochs: 1}}
setups:
  none: {{norm: {{kind: none}}}}
  "[bn_%]": {{norm: {{kind: batch}}}}
  "g|n": {{norm: {{kind: group, groups: 4, placement: after}}}}
axes: {{data.batch_size: [4, 64], optim.lr: [0.03, 0.3, 0.6]}}
tune: {{axis: optim.lr, by: val/accuracy}}
seeds: 6
claims:
  - id: small
    says: {json.dumps(HOSTILE)}
    metric: test/running/accuracy
    better: g|n@4
    worse: "[bn_%]@4"
    smallest_effect: 1
  - {{id: lr, says: it trains, metric: usable_lr_max, target: 0.6, better: g|n, worse: none,
     at: {{data.batch_size: 64}}}}
"""
TEXTS = st.text(alphabet=st.one_of(st.sampled_from(HOSTILE), st.characters()), max_size=30)


def told(config: schema.RunConfig) -> Told:
    accuracy = {"none": 0.5, "[bn_%]": 0.6, "g|n": 0.75}[config.setup] + 0.003 * config.seed**0.5
    lost = config.setup == "none" and config.optim.lr > 0.5
    accuracy += 0.01 * (config.optim.lr == 0.3)
    return Told(
        curve=[0.3, accuracy], test=accuracy - 0.01, state="diverged" if lost else "completed"
    )


@pytest.fixture(autouse=True, scope="module")
def _no_figures() -> Iterator[None]:
    with undrawn():
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment with claims, reported once."""
    folder = invented(tmp_path_factory.mktemp("paper"), STUDY, told).path
    (folder / "printed").write_text(printed(folder))
    return folder


def printed(study: Path, *options: str) -> str:
    """What `bnbench report` prints."""
    said = bnbench("report", str(study), *options)
    assert (said.code, said.err) == (0, "")
    return said.out


def record_of(study: Path) -> Record:
    """What the report has stored."""
    found: Record = json.loads((study / "report.json").read_text())
    return found


# --- escapes ------------------------------------------------------------------------------


@given(TEXTS)
@example(HOSTILE)
@example("---,,'''?`")
def test_latex_obeys_nothing_of_a_text(text: str) -> None:
    written = latex_text(text)
    ours = re.compile(
        r"\\[{}$&#%_]|\\text[a-z]+\{\}|\\ldots\{\}|\{\\char\d+\}|\$\\?[a-z−-]+\$|\$\^{[0-9-]}\$"
        r"|\{[][*]\}|\{\}"
    )
    left = ours.sub("", written)
    assert not set(left) & set('\\{}$&#%_^~"`<>|[]*\n')
    assert not re.search("--|''|,,", written)


@given(st.text(alphabet="abcXYZ 019.,:;()/+=!?@é", max_size=20))
def test_latex_leaves_plain_text_as_it_is(text: str) -> None:
    assert latex_text(text).replace("{}", "") == " ".join(text.split())


@given(TEXTS.filter(lambda text: text.isprintable()))
@example(HOSTILE)
@example("https://example.org/a_b")
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    table = f"| a |\n| :-- |\n| {markdown_text(text)} |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [token for token in tokens if token.type == "inline"]
    assert [shown(each) for each in cells] == ["a", " ".join(text.split())]


def shown(token: Token) -> str:
    """The text of a token, which may hold nothing but text."""
    assert {child.type for child in token.children or ()} <= {"text", "text_special"}
    return "".join(child.content for child in token.children or ())


# --- what is printed ----------------------------------------------------------------------


def cells(text: str) -> list[list[str]]:
    """The rows of Markdown's tables, unescaped."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows: list[list[str]] = []
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open") and after is not None:
            rows[-1].append(shown(after) if after.type == "inline" else "")
    return rows


def test_the_tables_say_what_the_terminal_says(study: Path) -> None:
    terminal = (study / "printed").read_text()
    heading, *rows = cells(paper.as_markdown(record_of(study)))
    assert heading[:5] == ["setup", "norm", "placement", "batch size", "learning rate"]
    assert heading[5] == "test %"
    results, claims = rows[:6], rows[7:]
    assert [row[:5] for row in results[::2]] == [
        ["none", "none", "–", "4", "0.3"],
        ["[bn_%]", "batch", "before", "4", "0.3"],
        ["g|n", "group", "after", "4", "0.3"],
    ]
    lines = [" ".join(line.split()) for line in terminal.splitlines()]
    for setup, _, _, *values in results:
        row = " ".join([f"{setup}*", *values[:-1]])
        assert [line for line in lines if line.startswith(row)], row
        assert values[-1] == "6"
    assert [claim[1] for claim in claims] == ["supported", "supported"]
    for claim in claims:
        assert claim[2] in terminal
        assert "(" not in claim[3]


def test_a_caption_is_of_what_its_table_shows(study: Path) -> None:
    """The same interval is not shown twice, and one claim is not corrected for others."""
    claim, other = record_of(study)["claims"]
    ends = claim["effect"]["interval"]
    for over, shown in ((ends, False), ([ends[0] - 1, ends[1]], True)):
        claim["effect"]["over_images"] = {"interval": over}
        table = paper.claims_table("", [claim])
        assert ("(" in table.rows[0][3]) == ("in parentheses" in table.caption) == shown
        assert "Holm" not in table.caption
    assert "Holm" in paper.claims_table("", [claim, other]).caption


def test_the_structure_of_latex(study: Path) -> None:
    text = paper.as_latex(record_of(study))
    assert text.startswith("% bnbench ")
    bodies = re.findall(r"\\begin{tabular}{([^\n]*)}\n(.*?)  \\end{tabular}", text, re.DOTALL)
    assert len(bodies) == text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 2
    for columns, body in bodies:
        top, heading, middle, *rows, bottom = body.splitlines()
        assert [top.strip(), middle.strip(), bottom.strip()] == [
            r"\toprule",
            r"\midrule",
            r"\bottomrule",
        ]
        count = len(re.findall(r"[lr]|p\{[^}]*\}", columns))
        for row in (heading, *rows):
            assert row.endswith(r" \\")
            assert len(re.findall(r"(?<!\\)&", row)) == count - 1, row
    assert re.findall(r"\\label{(.*?)}", text) == ["tab:x", "tab:x-claims"]
    caption = re.findall(r"\\caption{(.*)}", text)[0]
    for fact in ("after 1 epoch (100 steps) of synthetic", "in batches of 4 or 64 images: means",
                 "learning rate was chosen on validation accuracy", r"95 \% interval",
                 "Trained with bnbench 0 and PyTorch 2 on the CPU."):  # fmt: skip
        assert fact in caption


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no TeX")
@pytest.mark.parametrize("options", ["", "[twocolumn]"])
def test_latex_is_typeset_within_the_width(study: Path, tmp_path: Path, options: str) -> None:
    record = record_of(study)
    wide = next(cell for cell in record["cells"] if cell["chosen"])
    wide["metrics"]["population_accuracy"] = {
        "mean": 0.9, "values": [0.9], "interval": [0.8, 0.95]
    }  # fmt: skip
    wide["setup"] = "a name of thirty-two letters,,,"
    packages = "\\usepackage{booktabs,graphicx}"
    (tmp_path / "x.tex").write_text(
        f"\\documentclass{options}{{article}}{packages}\\begin{{document}}\n"
        f"{paper.as_latex(record)}\n{latex_text(record['methods'])}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    assert "Overfull" not in completed(*command, cwd=tmp_path, errors="replace").stdout


def test_the_csv_has_every_cell_with_norm_and_verdict(study: Path) -> None:
    stored = record_of(study)["cells"]
    rows = list(csv.DictReader(io.StringIO(paper.as_flat_csv(record_of(study)))))
    assert len(rows) == len(stored) == 18
    for row, cell in zip(rows, stored, strict=True):
        assert row["norm.kind"] == {"none": "none", "[bn_%]": "batch", "g|n": "group"}[row["setup"]]
        assert row["norm.placement"] == {"none": "", "g|n": "after"}.get(row["setup"], "before")
        test = cell["metrics"]["test_accuracy"]
        assert (row["test_accuracy"] == "") is (test is None)
        if test is not None:
            found = [float(row[f"test_accuracy{end}"]) for end in ("", "/low", "/high")]
            assert found == [test["mean"], *test["interval"]]
    verdicts = {
        (row["setup"], row["data.batch_size"], row["optim.lr"]): row["verdict"] for row in rows
    }
    assert verdicts["g|n", "4", "0.3"] == verdicts["[bn_%]", "4", "0.3"] == "small: supported"
    assert verdicts["g|n", "4", "0.6"] == ""  # not chosen
    assert verdicts["none", "64", "0.6"] == "lr: supported"  # a claim over all rates
    assert verdicts["none", "4", "0.3"] == ""
    runs = list(csv.DictReader(io.StringIO((study / "report.csv").read_text())))
    assert {(run["setup"], run["norm.kind"]) for run in runs} == {
        ("none", "none"), ("[bn_%]", "batch"), ("g|n", "group")
    }  # fmt: skip


def test_the_methods_of_a_study(study: Path) -> None:
    text, claims = record_of(study)["methods"], record_of(study)["claims"]
    for fact in (
        "The images are of synthetic (1,000 train,",
        "test images), without augmentation. The network is a plain convolutional network (",
        "(ReLU activation, He initialization, ",
        "features; without dropout). It was trained in 3 setups: none (no normalization); ",
        "[bn_%] (batch normalization, before the activation,",
        "g|n (group normalization, after the activation, ε = 10⁻⁵, affine, groups 4). Training",
        "Training was by SGD (learning rate 0.03, 0.3 or 0.6, cosine schedule, warm-up over 5 % of",
        "; without weight decay or learning rate rule) for 1 epoch (100 steps), in batches of 4",
        "The learning rate was chosen for each setup",
        "Each configuration was trained with 6 seeds",
        "means over the seeds that completed, with Student's",
        "Of 108 runs 12 diverged",
        "The experiment's file states 2 claims, not registered before the first run. The",
        "sign-flip test of the differences beyond that edge gives p < 0.05 after Holm's correction",
    ):
        assert fact in text
    order = ["images", "network", "Training", "chosen", "seeds;", "Test", "claims", "PyTorch"]
    assert order == sorted(order, key=text.index), "that of a paper"
    assert "is an end of its grid" not in text
    assert "milestones" not in text  # of a schedule that is not in use
    assert ("infinite" in text) == any(each["effect"]["infinite"] for each in claims)
    assert text.strip() in html.unescape((study / "report.html").read_text())


def test_what_a_budget_means_along_an_axis(tmp_path: Path) -> None:
    """Where images are fixed, steps follow the batch size, and the other way round."""
    text = "{}train: {{{}}}\naxes: {{{}}}\nseeds: 2\n"
    sizes = "data: {dataset: synthetic, train_images: 2000, validation_size: 100}\n"
    for number, (budget, axes, said) in enumerate((
        ("examples: 2000", "data.batch_size: [64, 4], optim.lr: [0.1, 0.2]",
         "2,000 images (500 and 32 steps at batch size 4 and 64), in batches of"),
        ("steps: 50", "data.batch_size: [64, 4]",
         "50 steps (200 and 3,200 images at batch size 4 and 64), in batches of"),
        ("steps: 50", "optim.lr: [0.1, 0.2]", " for 50 steps, in batches of"),
        ("steps: 5", "train.steps: [5, 10]", " for 5 or 10 steps (320 and 640 images at steps"),
    )):  # fmt: skip
        place = tmp_path / str(number)
        place.mkdir()
        tell = lambda config: Told(steps=feasible.planned_steps(config))  # noqa: E731
        folder = invented(place, text.format(sizes, budget, axes), tell)
        assert said in printed(folder.path, "--methods")


def test_a_layer_of_the_users_own_is_called_by_its_class(tmp_path: Path) -> None:
    (tmp_path / "layer.py").write_text("class PeakNorm: ...\n")
    norm = "norm: {kind: custom, target: layer.py:PeakNorm, placement: after}"
    folder = invented(tmp_path, f"setups: {{peak: {{{norm}}}, bn: {{}}}}\n", lambda _: Told()).path
    rows = cells(printed(folder, "--format", "markdown"))
    assert rows[1][:3] + rows[2][:3] == ["peak", "PeakNorm", "after", "bn", "batch", "before"]
    assert "peak (PeakNorm, after the activation); bn (batch norm" in printed(folder, "--methods")
    gaps = [row[rows[0].index(words.GAP)] for row in rows[1:]]
    assert gaps == ["–", "0.0"], "without batch statistics there is none, with them it may be 0"
    assert "peak & PeakNorm & after &" in printed(folder, "--format", "latex")
    row = next(csv.DictReader(io.StringIO(printed(folder, "--format", "csv"))))
    assert (row["norm.kind"], row["norm.name"]) == ("custom", "PeakNorm")


def test_what_was_not_done_is_not_said(tmp_path: Path) -> None:
    setups = "setups: {bn: {}, ln: {norm: {kind: layer}, optim: {kind: adamw}}}"
    text = f"question: Which?\ntrain: {{steps: 100}}\n{setups}\nseeds: 2\n"
    folder = invented(tmp_path, text, lambda config: Told() if config.seed == 0 else None)
    said = printed(folder.path, "--methods")
    latex = paper.as_latex(record_of(folder.path))
    assert "Only 2 of 4 runs have a result." in said
    assert "for 100 steps, in batches of 64 images" in said
    assert "Of 4 runs none diverged" in said
    assert "ln (layer normalization, before the activation, ε = 10⁻⁵, affine; optim.lr " in said
    for word in ("chosen", "claim", "Holm", "epoch", "parentheses"):
        assert word not in said
    assert latex.count(r"\begin{table*}") == 1
    assert "At chance" not in latex
    assert "Only 2 of 4 runs have a result." in latex
    assert "Which?" not in latex
    assert "    setup & norm & test" in latex, "both are before the activation"


def test_the_columns_tell_what_names_do_not(tmp_path: Path) -> None:
    """Rates at which it stays at chance are not chosen, and so no caption's matter."""
    setups = "setups: {BatchNorm: {}, l-ayer_norm: {norm: {kind: layer}}}"
    rates = "axes: {optim.lr: [0.1, 0.2]}\ntune: {axis: optim.lr, by: val/accuracy}\nseeds: 3"
    text = f"data: {{dataset: synthetic}}\n{setups}\n{rates}\n"
    tell = lambda config: Told([end := 0.1 + 4 * (config.optim.lr < 0.15) / 10], end)  # noqa: E731
    record = recorded(read_study(invented(tmp_path, text, tell)))
    assert cells(paper.as_markdown(record))[0][:3] == ["setup", "learning rate", "test %"]
    assert "At chance" not in record["caption"]
    assert "Of 12 runs none diverged" in record["methods"]
    assert "; 6 stayed at chance, none of them at a chosen learning rate." in record["methods"]
    for text in (record["caption"], record["methods"]):
        assert "The chosen learning rate of BatchNorm and l-ayer_norm is an end of its grid" in text
        assert "add " not in text


def test_forms_as_they_are_typed(study: Path) -> None:
    assert f"--format {'|'.join(paper.FORMS)} " in bnbench("report", "--help").out
    record = record_of(study)
    assert printed(study, "--format", "latex") == paper.as_latex(record)
    paragraph = printed(study, "--methods", "--format", "markdown")
    assert paragraph == markdown_text(record["methods"]) + "\n"
    said = bnbench("report", str(study), "--json", "--format", "csv")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("--json prints all of the report")
    said = bnbench("report", str(study), "--methods", "--format", "csv")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("--methods is a paragraph")
