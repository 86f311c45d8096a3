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
from bnbench.diagnosis.result import (
    Diagnosis,
    Finding,
    Kind,
    LayerReading,
    Loader,
    Score,
    number,
    percent,
)
from bnbench.wording import counted, cut, listing

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
COSTS = {True: "it costs accuracy or loss here", False: "a risk, no harm measured here"}
"""Of a finding, by whether it is harmful."""

LOADERS: dict[Loader, str] = {"train": "training", "eval": "evaluation"}


def tables(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Everything that there is to say, from the figures to the findings."""
    took = f", {diagnosis.seconds:.0f} s" if diagnosis.seconds >= LONG_SECONDS else ""
    yield Text(images(diagnosis) + took)
    yield ""
    yield from _scores(diagnosis)
    yield ""
    if diagnosis.layers:
        yield from _layers(diagnosis)
        yield ""
    yield from _findings(diagnosis)
    for note in diagnosis.notes:
        yield Text(f"note: {note}", style="dim")


def images(diagnosis: Diagnosis) -> str:
    """What was looked at."""
    images = " and ".join(f"{n:,} {LOADERS[loader]}" for loader, n in diagnosis.images.items())
    return (
        f"{counted(len(diagnosis.layers), 'BatchNorm layer')}; {images} images, dropout off; "
        f"the training loader's batch size is {diagnosis.batch_size:,}"
    )


def verdict(diagnosis: Diagnosis) -> str:
    """All in one sentence."""
    running, population = diagnosis.reading("running"), diagnosis.reading("population")
    if not diagnosis.layers and diagnosis.healthy:
        return f"no layer depends on batch statistics: {running.figures} in both modes"
    if diagnosis.healthy:
        return (
            f"nothing is wrong: {running.figures} under running statistics, {population.figures} "
            "under population statistics"
        )
    harms = [each.name for each in diagnosis.findings if each.harmful]
    mere = [each.name for each in diagnosis.findings if not each.harmful]
    risks = f"a risk: {listing(mere, 'and')}" if mere else ""
    if not harms:
        return f"no harm measured, {risks}; {running.figures} under running statistics"
    running, batch = _furthest(diagnosis)
    said = f"{listing(harms, 'and')}: {running.figures} under running statistics"
    better: dict[str, list[str]] = {}
    for reading in (batch, diagnosis.reading("population", running.loader)):
        if running.loss > reading.loss:
            kind = "population" if reading.statistics == "population" else "batch"
            better.setdefault(reading.figures, []).append(kind)
    for figures, kinds in better.items():
        said += f", {figures} under {listing(kinds, 'and')} statistics"
    if small := _in_small_batches(diagnosis, running):
        said += f", {small.figures} under the statistics of {small.batch_size} images"
    if len(diagnosis.images) > 1:
        said += f" ({LOADERS[running.loader]} images)"
    return "; ".join(filter(None, (said, risks)))


def headline(diagnosis: Diagnosis) -> str:
    """The first finding that does harm, and what it costs; where none does, the verdict."""
    harms = [each.name for each in diagnosis.findings if each.harmful]
    if not harms:
        return verdict(diagnosis)
    running, batch = _furthest(diagnosis)
    population = diagnosis.reading("population", running.loader)
    said = f"{harms[0]}: {_short(running)} in eval()"
    if small := _in_small_batches(diagnosis, running):
        return f"{said}, {_short(small)} in batches of {small.batch_size}"
    if population.loss < running.loss and not diagnosis.against:
        return f"{said}, {_short(population)} with recalibrated statistics"
    better = batch.loss < running.loss
    return f"{said}, {_short(batch)} under batch statistics" if better else said


def _short(reading: Score) -> str:
    if reading.accuracy is None:
        return reading.figures
    return f"{percent(reading.accuracy)} right"


def _furthest(diagnosis: Diagnosis) -> tuple[Score, Score]:
    """Under running and under batch statistics, of the images where these differ most."""
    kinds: list[tuple[Loader, Kind]] = [("train", "batch")]
    kinds += [(loader, "shuffled") for loader in diagnosis.images]
    pairs = [
        (diagnosis.reading("running", loader), diagnosis.reading(kind, loader))
        for loader, kind in kinds
    ]
    return max(pairs, key=lambda pair: pair[0].loss - pair[1].loss)


def _in_small_batches(diagnosis: Diagnosis, running: Score) -> Score | None:
    """What batches that are too small cost in training mode, where that is the harm."""
    if not any(each.harmful and each.name == "batch-too-small" for each in diagnosis.findings):
        return None
    small = diagnosis.reading("shuffled", running.loader)
    return small if small.loss > running.loss else None


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
            f"{LOADERS[loader]} images, in eval mode: {right}loss {number(before.loss)} → "
            f"{number(after.loss)}"
        )
    return "\n".join([*lines, *spoils(diagnosis)])


def spoils(diagnosis: Diagnosis) -> Iterator[str]:
    """What makes the statistics as bad as they were when training goes on."""
    at_fault = {name for each in diagnosis.findings if each.name in SPOILS for name in each.layers}
    for momentum in dict.fromkeys(each.momentum for each in diagnosis.layers):
        layers = [each for each in diagnosis.layers if each.momentum == momentum]
        layers = [each for each in layers if each.name in at_fault]
        unusual = momentum is None or momentum < criteria.USUAL or momentum >= criteria.FAST
        if layers and unusual:
            shown = "None (the average of all batches)" if momentum is None else f"{momentum:g}"
            yield (
                f"momentum is still {shown} in {counted(len(layers), 'layer')}, as your code sets "
                "it:\nif training goes on, the statistics spoil again; set it to 0.1"
            )


def _table(first: Column, numbers: Iterable[str]) -> Table:
    others = (Column(name, justify="right", no_wrap=True) for name in numbers)
    return Table(
        first, *others, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False
    )


def scores(
    diagnosis: Diagnosis, fixed: Mapping[Loader, Score] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of readings. `fixed`: of a recalibrated checkpoint."""
    rights = any(each.accuracy is not None for each in diagnosis.readings)
    names = [
        name
        for loader in diagnosis.images
        for name in (f"{loader}: loss", *(["right"] if rights else []))
    ]
    found: dict[tuple[str, str], dict[Loader, Score]] = {}
    for each in diagnosis.readings:
        size = "" if each.batch_size is None else f"{each.batch_size:,}"
        found.setdefault((STATISTICS[each.statistics], size), {})[each.loader] = each
    if fixed:
        found["running, in the fixed checkpoint", ""] = dict(fixed)
    rows = []
    for key, by_loader in found.items():
        cells = list(key)
        for loader in diagnosis.images:
            one = by_loader.get(loader)
            cells.append(number(one.loss) if one else "–")
            if rights:
                accuracy = one.accuracy if one else None
                cells.append("–" if accuracy is None else percent(accuracy))
        rows.append(cells)
    return ["statistics", "batches of", *names], rows


def _scores(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    (first, *others), rows = scores(diagnosis)
    table = _table(Column(first, no_wrap=True), others)
    for cells in rows:
        table.add_row(*cells)
    yield table
    yield Text(
        f"loss: {diagnosis.loss};\nthe same examples under each kind of statistics;\n"
        'population ("precise BN"): pooled over shuffled training batches of that size',
        style="dim",
    )


def _layers(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    worst = sorted(diagnosis.layers, key=badness, reverse=True)[:MOST_LAYERS]
    left = len(diagnosis.layers) - len(worst)
    columns, rows = layers(diagnosis)
    table = _table(Column(columns[0], overflow="fold"), columns[1:])
    for each, row in zip(diagnosis.layers, rows, strict=True):
        if each in worst:
            table.add_row(*row, style="bold" if off(each) else "")
    yield table
    more = f"\n{left} more layers: --json lists all" if left else ""
    yield Text(
        "off: running against population statistics, |Δμ|/σ and |ln σ²| (bold: far off);\n"
        "blame: loss under a layer's running statistics minus that under the batch's"
        f"{below_zero(worst)}{'; channels: dead, with σ² ≤ ε' if 'dead' in columns else ''}{more}",
        style="dim",
    )


def below_zero(layers: Iterable[LayerReading], new_line: str = "\n") -> str:
    """What a negative blame means, where one of these layers has one."""
    if all(round(each.blame or 0.0, 3) >= 0 for each in layers):
        return ""
    return f";{new_line}below 0: other layers' running statistics fit its own better"


def layers(diagnosis: Diagnosis) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of layers, of all of them."""
    columns = ["layer", "channels", "momentum", "updates", "μ off", "σ² off", "blame"]
    if any(each.dead or each.under_eps for each in diagnosis.layers):
        columns += ["dead", "≤ ε"]
    return columns, [_row(each)[: len(columns)] for each in diagnosis.layers]


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


def badness(layer: LayerReading) -> tuple[bool, float, float]:
    """Sorts layers, the worst last."""
    return bool(layer.dead or layer.under_eps or not layer.tracks), *criteria.rank(layer)


def _findings(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    if diagnosis.healthy:
        yield Text(verdict(diagnosis), style="bold green")
    for place, each in enumerate(diagnosis.findings, start=1):
        style = "bold red" if each.harmful else "bold yellow"
        yield Text.assemble((f"{place}. {each.name}", style), f": {COSTS[each.harmful]}")
        for text in (
            Text(each.evidence[:1].upper() + each.evidence[1:]),
            Text(f"→ {each.do}"),
            Text(where(each, diagnosis), style="dim"),
        ):
            yield Padding(text, (0, 0, 0, 3), expand=False)
        yield ""


def where(finding: Finding, diagnosis: Diagnosis) -> str:
    """The layers that it is about."""
    layers = [name for name in finding.layers if name]
    if not layers:
        return "where: the whole network"
    if len(layers) == len(diagnosis.layers) > 1:
        return "where: every layer"
    return f"where: {cut(layers)}"
