"""Command lines that do not parse: what was probably meant, with the keys' other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from bnbench.config import hints
from bnbench.config.schema import BLOCKS
from bnbench.config.schema.run import Logger
from bnbench.wording import listing, printable

TOP_KEYS = ("experiment", "question", "profile", "log", "tune")
"""Of the file itself, that `--set` takes, but for those that options give."""

# What other programs call a command.
COMMANDS_ALSO_CALLED = {
    "train CONFIG for one run, bnbench sweep CONFIG for an experiment": "run start fit resume",
    "report EXPERIMENT": "plot plots results result show figures table summary analyze analyse",
    "status": "list ls runs experiments",
    "compare RUN RUN": "diff",
    "configs check FILE": "check validate lint",
    "configs copy NAME": "copy",
    "new": "init create",
    "diagnose TARGET": "fix debug eval test",
    "explain NAME": "doc docs describe",
    "tensorboard": "tb board",
    "--help": "help",
    "--version": "version",
}


def explain(error: Any) -> None:
    """Add to an error of the command line, click's, what to type instead, where that is known."""
    hint = None
    if re.match("No such option", error.message):
        hint = _option(error.option_name, error.ctx.command)
        if error.ctx.parent is None:
            hint = _before_command(error.option_name, error.ctx.command.commands)
        error.possibilities = error.possibilities if hint is None else None
    elif wrong := re.match("No such command '(.*?)'", error.message):
        if error.ctx.parent is None:
            command = hints.called(wrong[1].lower(), COMMANDS_ALSO_CALLED)
            hint = f"write bnbench {command}" if command else None
    elif wrong := re.match(r"Got unexpected extra arguments?.*?\((\S+?)=(\S+)", error.message):
        key, value = printable(wrong[1]), printable(wrong[2].rstrip(")"))
        hint = _set((hints.keys_called(key) or [key])[:1], value)
    elif hasattr(error, "param") and not error.message and error.ctx.command.epilog:
        error.message = f"For example: {error.ctx.command.epilog.splitlines()[2].strip()}"
    if hint is not None:
        error.message += f"\n  {hint}"


def _option(name: str, command: Any) -> str | None:
    """What to write instead of an option that is the name of a key, of a block or of a value."""
    word = hints.plain(name.lstrip("-"))
    options = [option for each in command.params for option in each.opts]
    takes_keys = "--set" in options
    if takes_keys and word in get_args(Logger):
        return f"write --set 'log=[{word}]'"
    if instead := hints.instead(word):
        return instead
    keys = hints.keys_called(word) or [key for key in [word] if "." in key or key in TOP_KEYS]
    if ours := [f"--{key.split('.')[-1]}" for key in keys if f"--{key.split('.')[-1]}" in options]:
        return f"write {ours[0]} VALUE"
    if word in BLOCKS and BLOCKS[word].tag:
        keys = [f"{word}.{BLOCKS[word].tag}"]
    if keys and takes_keys and all("." in key or key in TOP_KEYS for key in keys):
        return _set(keys, "VALUE")
    if takes_keys and (kind := hints.value_meant(word)):
        return _set([kind[0]], kind[1])
    return None


def _before_command(name: str, commands: Mapping[str, Any]) -> str | None:
    """What to write instead of an option that stands where a command is meant."""
    keys = {each: command for each, command in commands.items() if command.name != "configs"}
    having = [each for each, command in keys.items()
              if any(name in option.opts for option in command.params)]  # fmt: skip
    if having:
        return f"{name} is an option of {listing(having, 'and')}: write the command first"
    meant = _option(name, commands["train"])
    return meant and f"name a command first: bnbench train CONFIG {meant.removeprefix('write ')}"


def _set(keys: list[str], value: str) -> str:
    return f"write {listing(f'--set {key}={value}' for key in keys)}"
