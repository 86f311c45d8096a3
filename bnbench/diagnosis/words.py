"""A diagnosis for the terminal: figures, layers, and what is wrong, at 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnbench.diagnosis.criteria import off
from bnbench.diagnosis.result import Diagnosis, Finding, Kind, LayerReading, Loader, Score

MOST_LAYERS = 12
"""Rows of the table of layers: the worst ones; --json has all."""

LONG_SECONDS = 10.0
"""From here on it is said how long it took."""

STATISTICS: dict[Kind, str] = {
    "running": "running",
    "batch": "batch, as they come",
    "shuffled": "batch, shuffled",
    "population": "population",
}


def tables(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Everything that there is to say, from the figures to the findings."""
    yield Text(_looked_at(diagnosis))
    yield ""
    yield from _readings(diagnosis)
    yield ""
    if diagnosis.layers:
        yield from _layers(diagnosis)
        yield ""
    yield from _findings(diagnosis)
    for note in diagnosis.notes:
        yield Text(f"note: {note}", style="dim")


def fixed(diagnosis: Diagnosis) -> str:
    """What a recalibrated checkpoint gives, in a line for each loader."""
    lines = []
    for loader in diagnosis.images:
        before = diagnosis.reading("running", loader)
        after = diagnosis.reading("population", loader)
        lines.append(
            f"{_LOADERS[loader]} images, in eval mode: {100 * before.accuracy:.1f} → "
            f"{100 * after.accuracy:.1f} % right, loss {_number(before.loss)} → "
            f"{_number(after.loss)}"
        )
    return "\n".join(lines)


_LOADERS: dict[Loader, str] = {"train": "training", "eval": "evaluation"}


def _looked_at(diagnosis: Diagnosis) -> str:
    images = " and ".join(
        f"{count:,} {_LOADERS[loader]}" for loader, count in diagnosis.images.items()
    )
    layers = len(diagnosis.layers)
    took = f", {diagnosis.seconds:.0f} s" if diagnosis.seconds >= LONG_SECONDS else ""
    return (
        f"{layers} BatchNorm layer{'' if layers == 1 else 's'}; {images} images, dropout off; "
        f"the training loader's batch size is {diagnosis.batch_size:,}{took}"
    )


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)


def _readings(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    table = _table()
    table.add_column("statistics", no_wrap=True)
    table.add_column("batches of", justify="right")
    for loader in diagnosis.images:
        table.add_column(f"{loader}: loss", justify="right", no_wrap=True)
        table.add_column("right", justify="right", no_wrap=True)
    rows: dict[tuple[Kind, int | None], dict[Loader, Score]] = {}
    for each in diagnosis.readings:
        rows.setdefault((each.statistics, each.batch_size), {})[each.loader] = each
    for (kind, size), found in rows.items():
        cells = [STATISTICS[kind], "" if size is None else f"{size:,}"]
        for loader in diagnosis.images:
            one = found.get(loader)
            cells += (
                ["–", "–"] if one is None else [_number(one.loss), f"{100 * one.accuracy:.1f} %"]
            )
        table.add_row(*cells)
    yield table
    yield Text(
        "loss: cross entropy, nats; the same images under each kind of statistics;\n"
        "population: pooled over the training images, in shuffled batches of that size",
        style="dim",
    )


def _layers(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    shown = list(diagnosis.layers)
    left = len(shown) - MOST_LAYERS
    if left > 0:
        worst = sorted(shown, key=_badness, reverse=True)[:MOST_LAYERS]
        shown = [each for each in shown if each in worst]
    table = _table()
    table.add_column("layer", overflow="fold")
    channels = any(each.dead or each.under_eps for each in diagnosis.layers)
    for name in ("channels", "momentum", "updates", "μ off", "σ² off", "blame"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("dead", "≤ ε") if channels else ():
        table.add_column(name, justify="right", no_wrap=True)
    for each in shown:
        table.add_row(*_row(each)[: len(table.columns)], style="bold" if off(each) else "")
    yield table
    more = f"\n{left} more layers have less to blame: --json lists all" if left > 0 else ""
    yield Text(
        "off: running against population statistics, |Δμ|/σ and |ln σ²| (bold: far off);\n"
        "blame: nats that a layer's running statistics cost"
        f"{'; channels: dead, with σ² ≤ ε' if channels else ''}{more}",
        style="dim",
    )


def _row(layer: LayerReading) -> list[str]:
    def figure(value: float | None, form: str = ".3f") -> str:
        return "–" if value is None or not isfinite(value) else f"{value:{form}}"

    momentum = "mean" if layer.momentum is None else f"{layer.momentum:g}"
    return [
        layer.name or "(the model)",
        f"{layer.channels:,}",
        momentum if layer.tracks else "none kept",
        "–" if layer.updates is None else f"{layer.updates:,}",
        figure(layer.mean_error, ".2f"),
        figure(layer.variance_error, ".2f"),
        figure(layer.blame, "+.3f"),
        str(layer.dead or ""),
        str(layer.under_eps or ""),
    ]


def _badness(layer: LayerReading) -> tuple[bool, float, float]:
    blame = layer.blame if layer.blame is not None and isfinite(layer.blame) else 0.0
    return bool(layer.dead or layer.under_eps or not layer.tracks), blame, layer.mean_error or 0.0


def _findings(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    if diagnosis.healthy:
        yield Text(_nothing(diagnosis), style="bold green")
        return
    for number, each in enumerate(diagnosis.findings, start=1):
        cost = "it costs accuracy or loss here" if each.harmful else "a risk, no harm measured here"
        yield Text.assemble(
            (f"{number}. {each.name}", "bold red" if each.harmful else "bold yellow"),
            f": {cost}",
        )
        yield Padding(Text(_sentence(each.evidence)), (0, 0, 0, 3), expand=False)
        yield Padding(Text(f"→ {each.do}"), (0, 0, 0, 3), expand=False)
        yield Padding(Text(_where(each, diagnosis), style="dim"), (0, 0, 0, 3), expand=False)
        yield ""


def _nothing(diagnosis: Diagnosis) -> str:
    running, population = diagnosis.reading("running"), diagnosis.reading("population")
    return (
        f"nothing is wrong: {100 * running.accuracy:.1f} % right under running statistics, "
        f"{100 * population.accuracy:.1f} % under population statistics"
    )


def _where(finding: Finding, diagnosis: Diagnosis) -> str:
    layers = [name for name in finding.layers if name]
    if not layers:
        return "in the whole network"
    if len(layers) == len(diagnosis.layers) > 1:
        return "in every layer"
    more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
    return f"in {', '.join(layers[:5])}{more}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(loss: float) -> str:
    return f"{loss:.3f}" if isfinite(loss) else "not finite"
