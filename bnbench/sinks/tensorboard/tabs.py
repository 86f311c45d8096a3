"""Tabs that describe an experiment: HParams, and Custom Scalars.

HParams: TensorBoard's own `plugins.hparams.api` imports TensorFlow, and `SummaryWriter.add_hparams`
makes an extra run of every call: these are its messages, built directly. Custom Scalars: a regex is
tried at the beginning of each tag of each run, and every run asks once per chart; hence few charts,
and each regex ends with `$`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from google.protobuf.struct_pb2 import Struct
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)
from tensorboard.plugins.hparams import api_pb2 as api
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from bnbench.sinks.tensorboard import records
from bnbench.wording import key_words

# As in TensorBoard's `plugins.hparams.metadata`, which takes long to import.
PLUGIN = "hparams"
VERSION = 0
EXPERIMENT = "_hparams_/experiment"
START = "_hparams_/session_start_info"
END = "_hparams_/session_end_info"

Plain: TypeAlias = bool | int | float | str

_KINDS = {
    bool: api.DATA_TYPE_BOOL,
    int: api.DATA_TYPE_FLOAT64,
    float: api.DATA_TYPE_FLOAT64,
    str: api.DATA_TYPE_STRING,
}

ACCURACY_AT_END, DIVERGED_SHARE, GAP_AT_END = (
    "summary/test_running_accuracy",
    "summary/diverged",
    "summary/test_gap_accuracy",
)
METRICS = {
    ACCURACY_AT_END: ("test accuracy", "running statistics, at the end"),
    DIVERGED_SHARE: ("diverged", "1: yes, 0: no; of a row: the share of its seeds"),
    GAP_AT_END: (
        "test gap",
        "accuracy, eval mode minus training mode: above 0, eval mode is better; 0.01 is a point",
    ),
    "summary/test_running_loss": ("test loss", "running statistics, at the end"),
    "summary/val_running_accuracy": ("val accuracy", "running statistics, at the end"),
    "summary/test_batch_accuracy": ("test, batch", "test accuracy, batch statistics"),
    "summary/test_population_accuracy": (
        "test, population",
        "test accuracy, population statistics",
    ),
    "summary/val_batch_accuracy": ("val, batch", "val accuracy, batch statistics"),
    "summary/val_population_accuracy": ("val, population", "val accuracy, population statistics"),
}
"""Heading and description of each metric, by tag. TensorBoard shows the first five, which with
three columns of settings fit a window of 1,280 pixels; the others can be ticked."""
OF_BATCH_STATISTICS = tuple(
    tag for tag in METRICS if tag == GAP_AT_END or "_batch_" in tag or "_population_" in tag
)
"""Those that say nothing where no setup has batch statistics: the same as under running ones."""

DISCRETE = 20
"""Up to so many different numbers get a box to tick each; more get a range."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its different values in the runs of the experiment, sorted."""

    name: str
    values: tuple[Plain, ...]

    @property
    def differs(self) -> bool:
        """Whether runs are told apart by it."""
        return len(self.values) > 1


def columns(runs: Sequence[Mapping[str, Plain]]) -> tuple[Column, ...]:
    """What tells the rows of an experiment apart: the setup, and the keys that vary within one.

    What varies with the setup alone is said by its name. A column that is the same everywhere is
    left out, unless there is no other.
    """
    setups: dict[str, dict[str, set[Plain | None]]] = {}
    keys = dict.fromkeys(key for run in runs for key in run)
    for run in runs:
        of_setup = setups.setdefault(str(run["setup"]), {})
        for key in keys:
            of_setup.setdefault(key, set()).add(run.get(key))
    varying = [
        key
        for key in keys
        if key != "setup" and any(len(found[key]) > 1 for found in setups.values())
    ]
    if len(setups) > 1 or not varying:
        varying.insert(0, "setup")
    found = {key: {run[key] for run in runs if key in run} for key in varying}
    # Words and numbers do not compare.
    return tuple(
        Column(key, tuple(sorted(values, key=lambda value: (isinstance(value, str), value))))
        for key, values in found.items()
        if values
    )


@lru_cache(maxsize=1)
def experiment(
    columns: tuple[Column, ...], metrics: tuple[str, ...] = tuple(METRICS)
) -> Summary.Value:
    """What the tab shows: the same in every run, since TensorBoard takes the first it finds.

    `metrics`: those of `METRICS` that are shown.
    """
    chosen = [(tag, *METRICS[tag]) for tag in metrics]
    infos = [
        api.MetricInfo(name=api.MetricName(tag=tag), display_name=heading, description=description)
        for tag, heading, description in chosen
    ]
    named = [key_words(column.name) for column in columns]
    described = [
        _column(column, words if named.count(words) == 1 else column.name)
        for column, words in zip(columns, named, strict=True)
    ]
    content = api.Experiment(hparam_infos=described, metric_infos=infos)
    return _value(EXPERIMENT, HParamsPluginData(experiment=content))


def start(hparams: Mapping[str, Plain], *, group: str, wall_time: float) -> Summary.Value:
    """A run's values. Runs of one `group` are averaged into one row."""
    begun = SessionStartInfo(group_name=group, start_time_secs=wall_time)
    values = Struct()
    values.update(hparams)
    for name, value in values.fields.items():
        begun.hparams[name].CopyFrom(value)
    return _value(START, HParamsPluginData(session_start_info=begun))


def end(*, completed: bool, wall_time: float) -> Summary.Value:
    """The end of a run. The tab has no word for a run that diverged but "failed"."""
    status = api.STATUS_SUCCESS if completed else api.STATUS_FAILURE
    ended = SessionEndInfo(status=status, end_time_secs=wall_time)
    return _value(END, HParamsPluginData(session_end_info=ended))


def _column(column: Column, words: str) -> api.HParamInfo:
    kinds = {_KINDS[type(value)] for value in column.values}
    kind = kinds.pop() if len(kinds) == 1 else api.DATA_TYPE_STRING
    info = api.HParamInfo(name=column.name, display_name=words, type=kind, differs=column.differs)
    if kind == api.DATA_TYPE_FLOAT64 and len(column.values) > DISCRETE:
        info.domain_interval.min_value = float(column.values[0])
        info.domain_interval.max_value = float(column.values[-1])
    else:
        info.domain_discrete.extend(column.values)
    return info


def _value(tag: str, content: HParamsPluginData) -> Summary.Value:
    """The content is in the metadata; the tensor is empty."""
    content.version = VERSION
    plugin_data = SummaryMetadata.PluginData(
        plugin_name=PLUGIN, content=content.SerializeToString(deterministic=True)
    )
    empty = TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
    return Summary.Value(
        tag=tag,
        tensor=TensorProto(dtype=DT_FLOAT, tensor_shape=empty),
        metadata=SummaryMetadata(plugin_data=plugin_data),
    )


@dataclass(frozen=True, slots=True)
class Band:
    """A mean over seeds with its interval: `of` is the tag of a run, `tag` that of the mean.

    `lowest`, `highest`: the range of possible values.
    """

    of: str
    tag: str
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


ACCURACY = Band("accuracy/val_running", "seed_bands/accuracy_val_running", 0.0, 1.0)
GAP = Band("gap/val_accuracy", "seed_bands/gap_val_accuracy", -1.0, 1.0)
GAP_TITLE = "gap in val accuracy: above 0, eval mode is better (0.01: a point)"
LOSSES = (
    Band("loss/val_running", "seed_bands/loss_val_running", 0.0),
    Band("loss/val_batch", "seed_bands/loss_val_batch", 0.0),
)
BANDS = (ACCURACY, GAP, *LOSSES)
BY_BATCH_SIZE = Band(
    "summary/test_running_accuracy", "seed_bands/test_accuracy_by_batch_size", 0.0, 1.0
)


@lru_cache(maxsize=1)
def layout(*, probes: tuple[str, ...], several_batch_sizes: bool) -> Summary.Value:
    """The Custom Scalars tab: the same in every run, since TensorBoard joins what differs.

    `probes`: names of those that any run of the experiment has.
    """
    running_error = _lines("running error, by layer", "probe_running_error/.+$")
    population = _lines(
        "val loss: running against population statistics",
        "loss/val_running$",
        "loss/val_population$",
    )
    charts = [
        _lines("val loss: training mode against eval mode", "loss/val_batch$", "loss/val_running$"),
        _lines(GAP_TITLE, f"{GAP.of}$"),
        running_error if "running_error" in probes else population,
    ]
    by_batch_size = _margins("test accuracy by batch size (x: step = batch size)", BY_BATCH_SIZE)
    running, batch = LOSSES
    losses = [
        _margins("val loss, batch statistics", batch),
        _margins("val loss, running statistics", running),
    ]
    # TensorBoard draws these in reverse order.
    over_seeds = [
        *([by_batch_size] if several_batch_sizes else losses),
        _margins(GAP_TITLE, GAP),
        _margins("val accuracy, running statistics", ACCURACY),
    ]
    content = Layout(
        category=[
            Category(title="over seeds: mean and 95 % interval", chart=over_seeds),
            Category(title="training against inference", chart=charts),
        ]
    )
    return records.layout(
        metadata.CONFIG_SUMMARY_TAG, metadata.PLUGIN_NAME, content.SerializeToString()
    )


def _lines(title: str, *tags: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=tags))


def _margins(title: str, band: Band) -> Chart:
    """One band: of two, TensorBoard says of runs that have none that their tags are missing."""
    series = MarginChartContent.Series(value=band.tag, lower=band.lower, upper=band.upper)
    return Chart(title=title, margin=MarginChartContent(series=[series]))
