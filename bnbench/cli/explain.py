"""`bnbench explain`: what a name means."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bnbench.cli import completion
from bnbench.cli.root import Json, output, show
from bnbench.errors import UsageError
from bnbench.wording import listing, shortened

if TYPE_CHECKING:
    from bnbench.explain import Entry, Key

WIDEST = 100  # columns: longer lines are hard to read
PARTS = {
    "seen:": "seen",
    "cause:": "cause",
    "told by:": "told",
    "do:": "do",
    "how:": "code",
    "sources:": "sources",
}
"""Of a finding, in this order, with their labels."""


def explain(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.explained,
            help="A topic (norms, models, probes, metrics, claims, findings, …), a kind, a key, a "
            "metric, a command or an option; its topic may stand before it. Default: list the "
            "topics.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a kind, key, probe, metric, command or option means."""
    from bnbench import explain

    name, of = " ".join(words) if words else None, None
    if words and len(words) == 2 and (of := explain.topic(words[0])):
        name = words[1]
    found: Sequence[Entry | Key] = explain.entries()
    several = False
    if name is not None:
        several = sum(each.topic == explain.topic(name) for each in explain.entries()) > 1
        more = [] if several else [*_of_command_line(ctx.find_root().command, name)]
        if not as_json and not more and (taken := explain.taken_for(name)):
            show(f"{shortened(name)} is taken for {taken}")
        try:
            found = [*explain.find(name), *more]
        except UsageError:
            found = more
            if not found:
                raise
    of_topic = [each for each in found if isinstance(each, explain.Entry) and each.topic == of]
    found = of_topic or found
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False))
    elif name is None:
        for topic in explain.topics():
            names = [entry.name for entry in explain.entries() if entry.topic == topic]
            _row(topic, ", ".join(names), 10)
        show("\nbnbench explain NAME: a topic, a name of one, or a key such as norm.momentum")
        show("every key with its default: bnbench configs show default --resolved")
    elif several:
        for each in found:
            if isinstance(each, explain.Entry):
                _row(each.name, each.summary, 18)
    else:
        for number, each in enumerate(found):
            if number:
                show("")
            if isinstance(each, explain.Entry):
                _show_entry(each)
            else:
                _show_key(each)


def _of_command_line(root: Any, word: str) -> Iterator[Entry]:
    """The command of this name, and options: of it, or with such a value (slurm: --on)."""
    from bnbench.explain import Entry

    commands = {**root.commands}
    configs = commands.pop("configs")
    commands |= {f"configs {name}": each for name, each in configs.commands.items()}
    options: dict[tuple[str, str], list[str]] = {}
    for name, command in {**commands, "bnbench itself": root}.items():
        if word in (name, name.removeprefix("configs ")):
            typed = command.epilog.removeprefix("\b\n")
            details = (typed, f"bnbench {name} --help lists its options")
            yield Entry("commands", f"bnbench {name}", inspect.cleandoc(command.help), details)
        for each in command.params:
            if f"--{word}" in each.opts or word in (each.metavar or "").split("|"):
                options.setdefault((each.opts[0], each.help), []).append(name)
    for (option, text), names in options.items():
        yield Entry("options", f"{option} of {listing(names, 'and')}", text)


def _show_entry(entry: Entry) -> None:
    title = entry.name if entry.name == entry.topic else f"{entry.topic}: {entry.name}"
    output.print(title, style="bold", highlight=False)
    if entry.parts:
        _show_parts(entry.parts)
        return
    _show_text(entry.text)
    for detail in entry.details:
        show("")
        _show_text(detail)
    if entry.keys:
        show("")
    for key in entry.keys:
        _show_key(replace(key, kinds=()))


def _show_parts(parts: Mapping[str, str]) -> None:
    """A finding: what it looks like, where it comes from, what to do, and how."""
    for label, part in PARTS.items():
        if part == "code":
            show("\n" + textwrap.indent(parts[part], "    "))
        else:
            first = f"{label:<9}"
            for text in parts[part].splitlines():
                _wrapped(text, first, " " * len(first))
                first = " " * len(first)


def _show_key(key: Key) -> None:
    default = key.default if isinstance(key.default, str) else json.dumps(key.default)
    otherwise = "required" if key.required else f"default {default}"
    kinds = f" ({', '.join(key.kinds)})" if key.kinds else ""
    _wrapped(f"{key.name}{kinds}: {key.allowed}; {otherwise}", "", "    ")
    _wrapped(key.description, "    ", "    ")


def _row(label: str, text: str, width: int) -> None:
    """A label in a column of that width and a text that wraps next to it, or below a long label."""
    indent = " " * (width + 2)
    first = f"{label:<{width}}  "
    if len(label) > width:
        _wrapped(label, "", "  ")
        first = indent
    _wrapped(text, first, indent)


def _show_text(text: str) -> None:
    """A docstring in as many columns as there are: sentences wrap, formulas keep their lines."""
    lines: list[tuple[str, int]] = []  # each with the indent of what continues it
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        label = re.match(r"\S+(?: \S+)? {2,}(?=\S)", line)
        hang = label.end() if label else indent + 4 if indent else 0
        if lines and lines[-1][0] and line and indent == lines[-1][1] and not label:
            lines[-1] = (f"{lines[-1][0]} {line.strip()}", lines[-1][1])
        else:
            lines.append((line, hang))
    for line, hang in lines:
        _wrapped(line, "", " " * hang)


def _wrapped(text: str, first: str, indent: str) -> None:
    show(
        textwrap.fill(
            text,
            min(output.width, WIDEST),
            initial_indent=first,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )
    )
