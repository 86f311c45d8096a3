"""The Custom Scalars tab: training against inference, and means with their bands over seeds.

A regex is tried at the beginning of each tag of each run, and every run asks once per chart: few
charts, and each regex ends with `$`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)

from bnbench.sinks.tensorboard import records


@dataclass(frozen=True, slots=True)
class Band:
    """What seeds are averaged: the tag of a run, where its values can lie, the tag of the mean."""

    of: str
    tag: str
    title: str
    lowest: float = float("-inf")
    highest: float = float("inf")

    @property
    def lower(self) -> str:
        """The tag of the band's lower edge."""
        return f"{self.tag}_lower"

    @property
    def upper(self) -> str:
        """The tag of the band's upper edge."""
        return f"{self.tag}_upper"


def _band(of: str, title: str, *limits: float) -> Band:
    return Band(of, f"seed_bands/{of.replace('/', '_')}", title, *limits)


BANDS = (
    _band("accuracy/val_running", "val accuracy, running statistics", 0.0, 1.0),
    _band("gap/val_loss", "gap in val loss: running minus batch statistics"),
    _band("loss/val_running", "val loss, running statistics", 0.0),
    _band("loss/val_batch", "val loss, batch statistics", 0.0),
)
BY_BATCH_SIZE = Band(
    "summary/test_running_accuracy",
    "seed_bands/test_accuracy_by_batch_size",
    "test accuracy by batch size (x: step = batch size)",
    0.0,
    1.0,
)


def layout(*, probes: Collection[str], batch_sizes: int) -> Summary.Value:
    """The same in every run of an experiment, since TensorBoard joins what differs.

    `probes`: their names. `batch_sizes`: how many different ones the experiment has.
    """
    charts = [
        _lines(
            "val loss: training mode against eval mode",
            "loss/val_batch$",
            "loss/val_running$",
        ),
        _lines("gap in val loss: running minus batch statistics", "gap/val_loss$"),
        _lines("running error, by layer", "probe_running_error/.+$")
        if "running_error" in probes
        else _lines(
            "val loss: running against population statistics",
            "loss/val_running$",
            "loss/val_population$",
        ),
    ]
    accuracy, gap, *losses = BANDS
    over_seeds = [_margins(accuracy), _margins(gap)]
    over_seeds.append(_margins(BY_BATCH_SIZE) if batch_sizes > 1 else _margins(*losses))
    content = Layout(
        category=[
            Category(title="training against inference", chart=charts),
            Category(title="over seeds: mean and 95 % interval", chart=over_seeds),
        ]
    )
    return records.layout(
        metadata.CONFIG_SUMMARY_TAG, metadata.PLUGIN_NAME, content.SerializeToString()
    )


def _lines(title: str, *tags: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=tags))


def _margins(*bands: Band) -> Chart:
    series = [
        MarginChartContent.Series(value=each.tag, lower=each.lower, upper=each.upper)
        for each in bands
    ]
    title = bands[0].title if len(bands) == 1 else "val loss, running and batch statistics"
    return Chart(title=title, margin=MarginChartContent(series=series))
