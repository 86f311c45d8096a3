"""What the documentation shows is true: examples load, commands parse, links lead somewhere."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

import bnbench
from bnbench import cli
from bnbench.config import files, loading, plans
from bnbench.errors import ConfigError
from tests.processes import completed
from tests.test_architecture import PACKAGE, PACKAGES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "configs", ROOT / "runs", ROOT / "scripts", ROOT / "bnbench")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "configs/README.md").read_text()
ARCHITECTURE = (ROOT / "bnbench/README.md").read_text()

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; "" for those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands(text: str) -> list[str]:
    """The commands of a page's shell blocks."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("bnbench ")]


def command_of(line: str) -> tuple[Any, list[str]]:
    """The command that a line names, and its arguments."""
    name, *arguments = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    if hasattr(command, "commands") and arguments:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def test_the_readme_is_one_that_people_read() -> None:
    assert len(README.splitlines()) <= 200
    assert len(README.split()) <= 1800


@page
def test_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@page
def test_commands_parse(path: Path) -> None:
    for line in commands(path.read_text()):
        command, arguments = command_of(line)
        command.make_context("bnbench", arguments)


@page
def test_commands_in_sentences_exist_with_their_options(path: Path) -> None:
    for line in re.findall(r"`(bnbench [a-z][^`]*)`", path.read_text()):
        command, arguments = command_of(line)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {each for each in arguments if each.startswith("--")} <= options, line


@page
def test_python_compiles(path: Path) -> None:
    for block in blocks(path.read_text(), "python"):
        compile(block, str(path), "exec")


def test_the_pages_show_commands() -> None:
    assert len(commands(README)) >= 5


def test_the_example_of_the_configuration_is_sound(tmp_path: Path) -> None:
    example, profiles, claims, published, swapped, tuning = blocks(CONFIGURATION, "yaml")
    path = tmp_path / "my-study.yaml"
    path.write_text(example)
    # Three setups at 4 batch sizes and 7 rates, one with rates of its own, and 8 seeds.
    assert len(plans.expand(loading.load_experiment(path)).runs) == (3 * 7 + 2) * 4 * 8
    path.write_text(example + claims + published)
    assert len(loading.load_experiment(path).published) == 1
    assert plans.expand(loading.load_experiment(path)).runs
    path.write_text(re.sub(r"^seeds:.*\n", "", example, flags=re.MULTILINE) + profiles + claims)
    # Of the profile's claim: two setups at one batch size, three rates, six seeds.
    assert len(plans.expand(loading.load_experiment(path)).runs) == 2 * 1 * 3 * 6
    path.write_text(swapped.replace("my_norm.py", str(tmp_path / "my_norm.py")))
    (layer,) = (each for each in blocks(README, "python") if "class PeakNorm" in each)
    (tmp_path / "my_norm.py").write_text(layer)
    assert [run.setup for run in plans.expand(loading.load_experiment(path)).runs] == [
        "batch",
        "peak",
    ]
    path.write_text(tuning)
    assert len(plans.expand(loading.load_experiment(path)).runs) == 3


def test_the_study_of_the_readme_and_its_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (study,) = blocks(README, "yaml")
    path = Path("my-study.yaml")
    path.write_text(study)
    assert len(plans.expand(loading.load_experiment(path)).runs) == 2 * 2 * 3 * 6
    path.write_text(study.replace("groups: 4", "grops: 4"))
    with pytest.raises(ConfigError) as raised:
        loading.load_experiment(path)
    assert f"{raised.value}\n" in blocks(README, "")


def test_the_layer_of_the_readme_works(tmp_path: Path) -> None:
    (layer,) = [block for block in blocks(README, "python") if "PeakNorm" in block]
    (tmp_path / "my_norm.py").write_text(layer)
    (setup,) = re.findall(r"`(peak: .*)`", README)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"setups": {"batch": {}, **yaml.safe_load(setup)}}))
    assert len(plans.expand(loading.load_experiment(path)).runs) == 2
    names: dict[str, type[torch.nn.Module]] = {}
    exec(layer, names)
    assert names["PeakNorm"](3)(torch.ones(2, 3, 4, 4)).max() <= 1


def test_the_citation_of_the_readme_is_the_one_that_is_printed() -> None:
    printed = CliRunner().invoke(cli.app, ["--citation"])
    assert printed.exit_code == 0
    assert blocks(README, "bibtex") == [printed.stdout]
    assert f"version = {{{bnbench.__version__}}}" in printed.stdout


def test_the_table_of_packages_is_what_the_architecture_allows() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)/?` \|", ARCHITECTURE, re.MULTILINE)
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    levels = {name: level for name, (level, _) in PACKAGES.items() if name in there}
    assert {name: int(level) for level, name in rows} == levels


def test_where_to_change_names_files_that_exist() -> None:
    _, section = ARCHITECTURE.split("## Where to change X")
    named = re.findall(r"`((?:\w+/)[\w./]*)`", section.split("## Rules")[0])
    assert named
    for name in named:
        assert any((folder / name).exists() for folder in (PACKAGE, ROOT)), name
    for name, file in re.findall(r"`(\w+)` of `([\w/.]+)`", section):
        assert f"def {name}(" in (PACKAGE / file).read_text()


def test_every_script_and_every_shipped_experiment_has_its_row() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "scripts/README.md").read_text(), re.MULTILINE)
    scripts = [path for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK)]
    assert {path.name for path in scripts if path.is_file()} <= set(rows)
    listed = set(re.findall(r"^\| `([\w-]+)\.yaml` \|", CONFIGURATION, re.MULTILINE))
    assert listed == {name for name, _, _ in files.shipped() if "/" not in name}


def test_the_page_of_claims_says_what_was_registered_again_after_its_runs() -> None:
    registration = runpy.run_path(str(ROOT / "scripts/make_evidence"))["registration"]
    then = {"date": "2026-01-02T", "sha256": "ab12", "changed": [], "runs_before": 0}
    file = 'registered:\n  sha256: {}\n  decided:\n    - "seeds: 7, 8"\n'
    said = "registered on 2026-01-02, before the first run"
    assert registration({"registered": then}, file.format("ab12")) == said
    again = registration({"registered": then}, file.format("cd34"))
    assert again == f"{said}; registered again since, on seeds 7, 8"


@pytest.mark.parametrize(
    ("interval", "p", "found", "said"),
    [
        ([0.5, 2], 0.2, ["objected", "not clear"], ["objected"]),
        ([1.5, 2], 0.01, ["objected"], ["objected"]),
        ([-2, -1.5], 0.2, ["objected", "chance"], ["objected", "p = 0.2 after Holm's correction "
            "for 8 claims (0.025 before) is not below 0.05"]),
    ],
)  # fmt: skip
def test_the_page_of_claims_says_why_one_is_undecided_unless_its_interval_does(
    interval: list[float], p: float, found: list[str], said: list[str]
) -> None:
    reasons = runpy.run_path(str(ROOT / "scripts/make_evidence"))["reasons"]
    effect = {"interval": interval, "n": 8, "p": 0.025, "p_adjusted": p}
    claim = {"effect": effect, "reasons": found, "smallest_effect": 1, "direction": "up"}
    assert reasons(claim, 8) == said


def test_the_page_of_claims_follows_from_the_stored_results() -> None:
    assert completed(sys.executable, ROOT / "scripts/make_evidence", "--check").stderr == ""
    for path in (ROOT / "runs/reference/claims").glob("*.json"):
        assert "diagnose /" not in path.read_text(), f"{path.name} names a place of its machine"
