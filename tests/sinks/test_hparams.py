"""Columns of the HParams tab, read back as TensorBoard reads them."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorboard.plugins.hparams import metadata

from bnbench.sinks.tensorboard import tabs
from bnbench.sinks.tensorboard.tabs import DISCRETE, Plain, columns

BASE: dict[str, Plain] = {"setup": "bn", "norm.kind": "batch", "data.batch_size": 8}


def described(*runs: dict[str, Plain]) -> dict[str, dict[str, Any]]:
    """What TensorBoard reads of each column."""
    value = tabs.experiment(columns(runs))
    content = value.metadata.plugin_data.content
    experiment = MessageToDict(metadata.parse_experiment_plugin_data(content))
    return {info.pop("name"): info for info in experiment["hparamInfos"]}


def test_what_differs_and_what_always_stands_there() -> None:
    runs = [
        BASE | {"norm.affine": True, "norm.eps": 1e-5, "model.widths": "4-8"},
        BASE | {"norm.affine": False, "norm.eps": 1e-5, "data.batch_size": 32},
        BASE | {"setup": "gn", "norm.groups": 4},
    ]
    assert described(*runs) == {
        "setup": {"type": "DATA_TYPE_STRING", "differs": True, "domainDiscrete": ["bn", "gn"]},
        "data.batch_size": {
            "type": "DATA_TYPE_FLOAT64",
            "differs": True,
            "domainDiscrete": [8.0, 32.0],
        },
        "norm.affine": {
            "type": "DATA_TYPE_BOOL",
            "differs": True,
            "domainDiscrete": [False, True],
        },
        "norm.kind": {"type": "DATA_TYPE_STRING", "domainDiscrete": ["batch"]},
    }


def test_the_order_of_runs_does_not_matter() -> None:
    runs: list[dict[str, Plain]] = [BASE | {"optim.lr": lr} for lr in (0.3, 0.03, 3.0, 0.3)]
    assert columns(runs) == columns(reversed(runs))
    assert described(*runs)["optim.lr"]["domainDiscrete"] == [0.03, 0.3, 3.0]


def test_many_numbers_are_a_range() -> None:
    rates: list[dict[str, Plain]] = [BASE | {"optim.lr": 0.5 + i} for i in range(DISCRETE + 1)]
    info = described(*rates)["optim.lr"]
    assert info["domainInterval"] == {"minValue": 0.5, "maxValue": DISCRETE + 0.5}
    assert "domainInterval" not in described(*rates[1:])["optim.lr"]


def test_numbers_and_words_in_one_column_are_words() -> None:
    info = described(BASE | {"norm.mode": 3}, BASE | {"norm.mode": "deep"})["norm.mode"]
    assert info["type"] == "DATA_TYPE_STRING"
    assert info["domainDiscrete"] == [3.0, "deep"]


def test_the_constants_are_those_of_tensorboard() -> None:
    assert tabs.PLUGIN == metadata.PLUGIN_NAME
    assert tabs.VERSION == metadata.PLUGIN_DATA_VERSION
    assert tabs.EXPERIMENT == metadata.EXPERIMENT_TAG
    assert tabs.START == metadata.SESSION_START_INFO_TAG
    assert tabs.END == metadata.SESSION_END_INFO_TAG
    assert tabs.experiment([]).tensor == metadata.NULL_TENSOR
