"""Command lines that do not parse, and what is said to whoever typed them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bnbench import cli
from bnbench.errors import UsageError
from tests.runs import write_experiment

SET = "write --set "
TYPED = [
    ("train default --lr 0.1", SET + "optim.lr=VALUE"),
    ("train default --epochs=3", SET + "train.epochs=VALUE"),
    ("sweep default --batch-size 8", SET + "data.batch_size=VALUE"),
    ("configs check default --norm group", SET + "norm.kind=VALUE"),
    ("sweep default --optim.lr 0.1", SET + "optim.lr=VALUE"),
    ("sweep default --bn", SET + "norm.kind=batch"),
    ("train default --momentum 0.1", SET + "norm.momentum=VALUE or --set optim.momentum=VALUE"),
    ("train default --gpu", "write --device VALUE"),
    ("train default --out x", "--runs-dir DIR says where experiments are stored"),
    ("sweep quickstart --profile quick", SET + "profile=VALUE"),
    ("sweep quickstart --wandb", SET + "'log=[wandb]'"),
    ("sweep quickstart --log wandb", SET + "log=VALUE"),
    ("train default lr=0.1", SET + "optim.lr=0.1"),
    (
        "run default",
        "write bnbench train CONFIG for one run, bnbench sweep CONFIG for an experiment",
    ),
    ("plot my-study", "write bnbench report EXPERIMENT"),
    ("help", "write bnbench --help"),
    ("--lr 3", "name a command first: bnbench train CONFIG --set optim.lr=VALUE"),
    ("--bn", "name a command first: bnbench train CONFIG --set norm.kind=batch"),
    ("--seeds 3 sweep x", "--seeds is an option of new and sweep: write the command first"),
    ("report x --format xml", "take latex, markdown or csv"),
    ("report x --format latx", "did you mean latex?"),
    ("sweep x --seeds 0", "write --seeds 1"),
    ("sweep x --max-runs 99999999", "write --max-runs 1000000"),
    ("train x --seed -1", "write --seed 0"),
    ("tensorboard --port 99999", "write --port 65535"),
]


@pytest.mark.parametrize(("typed", "hint"), TYPED)
def test_what_to_type_instead_is_said(typed: str, hint: str) -> None:
    result = CliRunner().invoke(cli.app, typed.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"  {hint}"


def test_a_missing_argument_comes_with_an_example() -> None:
    said = CliRunner().invoke(cli.app, ["train"]).stderr
    assert said.endswith("Missing argument 'CONFIG'. For example: bnbench train default\n")


@pytest.mark.parametrize("command", ["train", "sweep", "report", "explain", "status", "diagnose"])
def test_an_empty_argument_is_no_folder(command: str) -> None:
    """`sweep "$X"` would train whatever lies in the folder that one is in."""
    result = CliRunner().invoke(cli.app, [command, ""])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("an argument is empty\n")


def test_a_number_is_named_with_what_is_allowed() -> None:
    said = CliRunner().invoke(cli.app, ["sweep", "x", "--seeds", "many"]).stderr
    assert said == "--seeds many: a whole number from 1 to 1,000,000 is wanted\n"


def test_the_file_of_an_experiment_means_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "study.yaml")
    (tmp_path / "other.yml").write_text("experiment: named\n")

    def said(command: str, name: str) -> str:
        result = CliRunner().invoke(cli.app, [command, name])
        return (result.stdout + result.stderr).strip()

    names = {"study.yaml": "study", "other.yml": "named", "claims/batch-size": "batch-size"}
    for typed in names:
        for command in ("report", "status", "tensorboard"):
            assert said(command, typed).endswith(f"\n  bnbench sweep {typed} trains it first")
    for typed, name in names.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "experiment.yaml").write_text(f"experiment: {name}\n")
        trains = f"bnbench sweep runs/{name}/experiment.yaml trains them"
        assert said("report", typed).endswith(trains)
        assert said("status", typed) == said("status", name) == "no runs yet"
    assert said("report", "stdy").endswith("\n  did you mean study?")
    (tmp_path / "README.md").write_text("# Any: file\n")
    assert said("report", "README.md").startswith("no experiment 'README.md' in runs\n  there is: ")


@pytest.mark.parametrize(
    "typed", ["status --lr 0.1", "train default --quite", "configs ls", "--nonsense"]
)
def test_no_hint_is_made_up(typed: str) -> None:
    result = CliRunner().invoke(cli.app, typed.split())
    assert result.exit_code == 2
    assert "write" not in result.stderr


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("gpu", "gpu is not a device\n  did you mean cuda?\n"),
        ("tpu", "tpu is not a device\n  auto, cpu, cuda, cuda:1 or mps\n"),
        ("cuda:x", "cuda:x is not a device\n"),
        ("cuda:99", "there is no device cuda:99 on this machine\n"),
    ],
)
def test_a_wrong_device_is_said_and_no_failure_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path / "study.yaml")
    result = CliRunner().invoke(cli.app, ["train", path.name, "--device", device])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not list(tmp_path.rglob("error.json"))


def test_a_file_here_that_is_meant_is_named_before_what_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deeper").mkdir()
    write_experiment(tmp_path / "deeper/my-study.yaml")
    for typed in ("deeper/mystudy.yaml", "deeper/my-study"):
        said = CliRunner().invoke(cli.app, ["sweep", typed]).stderr
        assert said.endswith("\n  did you mean deeper/my-study.yaml?\n")


def test_a_shipped_experiment_is_called_by_its_name() -> None:
    said = CliRunner().invoke(cli.app, ["train", "claims/placement"]).stderr
    assert said.startswith("claims/placement describes ")
    assert "\n  bnbench sweep claims/placement trains them; to train one, add" in said


@pytest.mark.parametrize("typed", ["--debug configs check nope", "configs check nope --debug"])
def test_debug_may_stand_anywhere_and_is_of_one_command(typed: str) -> None:
    result = CliRunner().invoke(cli.app, typed.split())
    assert isinstance(result.exception, UsageError)
    result = CliRunner().invoke(cli.app, ["configs", "check", "nope"])
    assert isinstance(result.exception, SystemExit)
