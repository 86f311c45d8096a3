"""The HParams tab: columns and metrics of an experiment, start and end of a run.

TensorBoard's own `plugins.hparams.api` imports TensorFlow, and `SummaryWriter.add_hparams` makes
an extra run of every call: these are its messages, as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.struct_pb2 import ListValue
from google.protobuf.struct_pb2 import Value as JSONValue
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams import api_pb2 as api
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

# As in TensorBoard's `plugins.hparams.metadata`, which takes long to import.
PLUGIN = "hparams"
VERSION = 0
EXPERIMENT = "_hparams_/experiment"
START = "_hparams_/session_start_info"
END = "_hparams_/session_end_info"

Plain: TypeAlias = bool | int | float | str

ALWAYS = ("setup", "norm.kind", "data.batch_size", "optim.lr")
"""Columns that stand there even where all runs have the same value."""

METRICS = {
    "summary/test_running_accuracy": ("test accuracy", "running statistics, at the end"),
    "summary/diverged": ("diverged", "1: yes, 0: no; of a row: the share of its seeds"),
    "summary/steps": ("steps", "optimizer steps; of a diverged run: where it diverged"),
    "summary/val_running_accuracy": ("val accuracy", "running statistics, at the end"),
    "summary/test_gap_accuracy": ("test gap", "accuracy, running minus batch statistics"),
    "summary/train_running_loss": ("train loss", "running statistics, at the end"),
    "summary/images_per_second": ("images/s", "of training work"),
}
"""Tags with a heading and a description. A run that spent its budget has all of them; one that
diverged has no accuracies and losses."""

DISCRETE = 20
"""As many different numbers get a box to tick each; more get a range."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its values in the runs of the experiment, sorted, each once."""

    name: str
    values: tuple[Plain, ...]

    @property
    def differs(self) -> bool:
        """Whether runs are told apart by it."""
        return len(self.values) > 1


def columns(runs: Iterable[Mapping[str, Plain]]) -> tuple[Column, ...]:
    """What an experiment's runs differ in, and `ALWAYS`; of keys that only some runs have, those
    with several values."""
    found: dict[str, dict[Plain, None]] = {key: {} for key in ALWAYS}
    for run in runs:
        for key, value in run.items():
            found.setdefault(key, {})[value] = None
    kept = [
        Column(key, tuple(sorted(values, key=_rank)))
        for key, values in found.items()
        if values and (key in ALWAYS or len(values) > 1)
    ]
    return tuple(sorted(kept, key=lambda column: (not column.differs, _place(column.name))))


def _rank(value: Plain) -> tuple[str, Plain]:
    return ("text", value) if isinstance(value, str) else ("number", value)


def _place(name: str) -> tuple[int, str]:
    return (ALWAYS.index(name) if name in ALWAYS else len(ALWAYS), name)


def experiment(columns: Iterable[Column]) -> Summary.Value:
    """What the tab shows. The same in every run, since the first that TensorBoard finds counts."""
    described = api.Experiment(
        hparam_infos=[_column(each) for each in columns],
        metric_infos=[
            api.MetricInfo(
                name=api.MetricName(tag=tag), display_name=heading, description=description
            )
            for tag, (heading, description) in METRICS.items()
        ],
    )
    return _value(EXPERIMENT, HParamsPluginData(experiment=described))


def start(hparams: Mapping[str, Plain], *, group: str, wall_time: float) -> Summary.Value:
    """A run's values. Runs of one `group` are averaged into one row."""
    begun = SessionStartInfo(group_name=group, start_time_secs=wall_time)
    for name, value in hparams.items():
        begun.hparams[name].CopyFrom(_json(value))
    return _value(START, HParamsPluginData(session_start_info=begun))


def end(*, completed: bool, wall_time: float) -> Summary.Value:
    """A run that diverged has failed, in the words that the tab has."""
    status = api.STATUS_SUCCESS if completed else api.STATUS_FAILURE
    ended = SessionEndInfo(status=status, end_time_secs=wall_time)
    return _value(END, HParamsPluginData(session_end_info=ended))


def _column(column: Column) -> api.HParamInfo:
    kinds = {_kind(value) for value in column.values}
    kind = kinds.pop() if len(kinds) == 1 else api.DATA_TYPE_STRING
    info = api.HParamInfo(name=column.name, type=kind, differs=column.differs)
    if kind == api.DATA_TYPE_FLOAT64 and len(column.values) > DISCRETE:
        info.domain_interval.min_value = float(column.values[0])
        info.domain_interval.max_value = float(column.values[-1])
    else:
        info.domain_discrete.CopyFrom(ListValue(values=[_json(each) for each in column.values]))
    return info


def _kind(value: Plain) -> int:
    match value:
        case bool():
            return int(api.DATA_TYPE_BOOL)
        case int() | float():
            return int(api.DATA_TYPE_FLOAT64)
        case str():
            return int(api.DATA_TYPE_STRING)


def _json(value: Plain) -> JSONValue:
    match value:
        case bool():
            return JSONValue(bool_value=value)
        case int() | float():
            return JSONValue(number_value=value)
        case str():
            return JSONValue(string_value=value)


def _value(tag: str, content: HParamsPluginData) -> Summary.Value:
    """All is in the metadata; the tensor is the shortest that there is."""
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
