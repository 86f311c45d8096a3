"""Command lines that do not parse, and what is said to whoever typed them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bnbench import cli

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
    ("train default lr=0.1", SET + "optim.lr=0.1"),
    (
        "run default",
        "write bnbench train CONFIG for one run, bnbench sweep CONFIG for an experiment",
    ),
    ("plot my-study", "write bnbench report EXPERIMENT"),
    ("help", "write bnbench --help"),
]


@pytest.mark.parametrize(("typed", "hint"), TYPED)
def test_what_to_type_instead_is_said(typed: str, hint: str) -> None:
    result = CliRunner().invoke(cli.app, typed.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"  {hint}"


def test_a_missing_argument_comes_with_an_example() -> None:
    said = CliRunner().invoke(cli.app, ["train"]).stderr
    assert said.endswith("Missing argument 'CONFIG'. For example: bnbench train default\n")


@pytest.mark.parametrize("typed", ["status --lr 0.1", "train default --quite", "configs ls"])
def test_no_hint_is_made_up(typed: str) -> None:
    result = CliRunner().invoke(cli.app, typed.split())
    assert result.exit_code == 2
    assert "write" not in result.stderr
