"""`--help` on a screen of 80 columns: whole sentences, and examples that can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from bnbench import cli

TOP: Any = typer.main.get_command(cli.app)


def commands(command: Any = TOP, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command and group with the words that lead to it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


PATHS = [path for path, _ in commands()]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


def helped(path: tuple[str, ...]) -> str:
    """What `--help` of a command prints."""
    result = CliRunner().invoke(cli.app, [*path, "--help"])
    assert result.exit_code == 0
    return result.stdout


def parsed(path: tuple[str, ...], arguments: list[str], command: Any = TOP) -> None:
    """Parse a command line, and run nothing. Raises what typer says of a wrong one."""
    for name in path:
        command = command.commands[name]
        assert arguments.pop(0) == name
    command.make_context("bnbench", arguments)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_fits_the_screen_and_cuts_nothing(path: tuple[str, ...]) -> None:
    usage, *lines = helped(path).splitlines()
    assert max(map(len, (usage, *lines))) <= 80
    assert not [line for line in lines if line.endswith(("...", "…"))]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_of_each_command_has_two_examples_that_can_be_typed(path: tuple[str, ...]) -> None:
    examples = re.findall(r"^    bnbench (.*)$", helped(path).partition("Examples:")[2], re.M)
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(re.split(" [|>] ", example)[0])
        of = next(each for each in reversed(PATHS) if tuple(words[: len(each)]) == each)
        assert of[: len(path)] == path
        parsed(of, words)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_each_option_and_argument_is_described(path: tuple[str, ...]) -> None:
    (command,) = [each for at, each in commands() if at == path]
    assert [each.name for each in command.params if not getattr(each, "help", "")] == []


@pytest.mark.parametrize("path", [("train",), ("sweep",), ("configs", "check")], ids=" ".join)
def test_help_says_what_a_key_is_and_where_to_read_of_it(path: tuple[str, ...]) -> None:
    text = " ".join(helped(path).split())
    assert "as in optim.lr=0.1" in text
    assert "`bnbench explain KEY` says what one means" in text
