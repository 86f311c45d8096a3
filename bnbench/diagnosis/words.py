"""A diagnosis for the terminal: figures, layers, and what is wrong, at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from math import isfinite

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from bnbench.diagnosis import criteria
from bnbench.diagnosis.criteria import off
from bnbench.diagnosis.result import Diagnosis, Finding, Kind, LayerReading, Loader, Score, percent
from bnbench.wording import counted

MOST_LAYERS = 12
"""Rows of the table of layers: the worst ones; --json has all."""

LONG_SECONDS = 10.0
"""From here on it is said how long it took."""

SPOILS = {"stale", "never-updated", "momentum-too-high"}
"""Findings that a momentum may be the reason of."""

STATISTICS: dict[Kind, str] = {
    "running": "running",
    "batch": "batch, as they come",
    "shuffled": "batch, shuffled",
    "population": "population",
}
LOADERS: dict[Loader, str] = {"train": "training", "eval": "evaluation"}


def tables(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Everything that there is to say, from the figures to the findings."""
    images = " and ".join(f"{n:,} {LOADERS[loader]}" for loader, n in diagnosis.images.items())
    layers = len(diagnosis.layers)
    took = f", {diagnosis.seconds:.0f} s" if diagnosis.seconds >= LONG_SECONDS else ""
    yield Text(
        f"{layers} BatchNorm layer{'' if layers == 1 else 's'}; {images} images, dropout off; "
        f"the training loader's batch size is {diagnosis.batch_size:,}{took}"
    )
    yield ""
    yield from _scores(diagnosis)
    yield ""
    if diagnosis.layers:
        yield from _layers(diagnosis)
        yield ""
    yield from _findings(diagnosis)
    for note in diagnosis.notes:
        yield Text(f"note: {note}", style="dim")


def text(diagnosis: Diagnosis) -> str:
    """The same without colours, 80 columns wide."""
    console = Console(width=80, color_system=None, file=StringIO())
    with console.capture() as captured:
        for part in tables(diagnosis):
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def fixed(diagnosis: Diagnosis, read_back: Mapping[Loader, Score]) -> str:
    """What a recalibrated checkpoint gives, as it was read back, in a line for each loader; and
    what is not in a checkpoint, and will spoil it again."""
    lines = []
    for loader, after in read_back.items():
        before = diagnosis.reading("running", loader)
        right = ""
        if before.accuracy is not None and after.accuracy is not None:
            right = f"{100 * before.accuracy:.1f} → {percent(after.accuracy)} right, "
        lines.append(
            f"{LOADERS[loader]} images, in eval mode: {right}loss {_loss(before.loss)} → "
            f"{_loss(after.loss)}"
        )
    return "\n".join([*lines, *_spoils(diagnosis)])


def _spoils(diagnosis: Diagnosis) -> Iterator[str]:
    """What makes the statistics as bad as they were when training goes on."""
    at_fault = {name for each in diagnosis.findings if each.name in SPOILS for name in each.layers}
    for momentum in dict.fromkeys(each.momentum for each in diagnosis.layers):
        layers = [each for each in diagnosis.layers if each.momentum == momentum]
        layers = [each for each in layers if each.name in at_fault]
        unusual = momentum is None or momentum < criteria.USUAL or momentum >= criteria.FAST
        if layers and unusual:
            shown = "None (the average of all batches)" if momentum is None else f"{momentum:g}"
            yield (
                f"momentum is still {shown} in {counted(len(layers), 'layer')}: it is set in your "
                "code, and training on spoils the statistics again; set it to 0.1"
            )


def _table(first: Column, numbers: Iterable[str]) -> Table:
    others = (Column(name, justify="right", no_wrap=True) for name in numbers)
    return Table(
        first, *others, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )


def _scores(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    rights = any(each.accuracy is not None for each in diagnosis.readings)
    names = [
        name
        for loader in diagnosis.images
        for name in (f"{loader}: loss", *(["right"] if rights else []))
    ]
    table = _table(Column("statistics", no_wrap=True), ["batches of", *names])
    found = {(each.statistics, each.batch_size, each.loader): each for each in diagnosis.readings}
    for kind, size in dict.fromkeys(key[:2] for key in found):
        cells = [STATISTICS[kind], "" if size is None else f"{size:,}"]
        for loader in diagnosis.images:
            one = found.get((kind, size, loader))
            cells.append(_loss(one.loss) if one else "–")
            if rights:
                accuracy = one.accuracy if one else None
                cells.append("–" if accuracy is None else percent(accuracy))
        table.add_row(*cells)
    yield table
    yield Text(
        f"loss: {diagnosis.loss};\nthe same examples under each kind of statistics;\n"
        'population ("precise BN"): pooled over shuffled training batches of that size',
        style="dim",
    )


def _layers(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    worst = sorted(diagnosis.layers, key=_badness, reverse=True)[:MOST_LAYERS]
    left = len(diagnosis.layers) - len(worst)
    channels = any(each.dead or each.under_eps for each in diagnosis.layers)
    numbers = ["channels", "momentum", "updates", "μ off", "σ² off", "blame"]
    table = _table(Column("layer", overflow="fold"), numbers + ["dead", "≤ ε"] * channels)
    for each in diagnosis.layers:
        if each in worst:
            table.add_row(*_row(each)[: len(table.columns)], style="bold" if off(each) else "")
    yield table
    more = f"\n{left} more layers: --json lists all" if left else ""
    yield Text(
        "off: running against population statistics, |Δμ|/σ and |ln σ²| (bold: far off);\n"
        "blame: the loss that a layer's running statistics cost"
        f"{'; channels: dead, with σ² ≤ ε' if channels else ''}{more}",
        style="dim",
    )


def _row(layer: LayerReading) -> list[str]:
    def figure(value: float | None, form: str) -> str:
        return "–" if value is None or not isfinite(value) else f"{value:{form}}"

    momentum = "mean" if layer.momentum is None else f"{layer.momentum:g}"
    return [
        layer.name or "(the model)",
        f"{layer.channels:,}",
        momentum if layer.tracks else "none kept",
        figure(layer.updates, ","),
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
        running, population = diagnosis.reading("running"), diagnosis.reading("population")
        yield Text(
            f"nothing is wrong: {running.figures} under running statistics, {population.figures} "
            "under population statistics",
            style="bold green",
        )
    for number, each in enumerate(diagnosis.findings, start=1):
        style, cost = "bold yellow", "a risk, no harm measured here"
        if each.harmful:
            style, cost = "bold red", "it costs accuracy or loss here"
        yield Text.assemble((f"{number}. {each.name}", style), f": {cost}")
        for text in (
            Text(each.evidence[:1].upper() + each.evidence[1:]),
            Text(f"→ {each.do}"),
            Text(_where(each, diagnosis), style="dim"),
        ):
            yield Padding(text, (0, 0, 0, 3), expand=False)
        yield ""


def _where(finding: Finding, diagnosis: Diagnosis) -> str:
    layers = [name for name in finding.layers if name]
    if not layers:
        return "where: the whole network"
    if len(layers) == len(diagnosis.layers) > 1:
        return "where: every layer"
    more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
    return f"where: {', '.join(layers[:5])}{more}"


def _loss(loss: float) -> str:
    return f"{loss:.3f}" if isfinite(loss) else "not finite"
