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


def test_what_tells_rows_apart_and_nothing_else() -> None:
    runs = [
        BASE | {"norm.affine": True, "norm.eps": 1e-5, "model.widths": "4-8"},
        BASE | {"norm.affine": False, "norm.eps": 1e-5, "data.batch_size": 32},
        BASE | {"setup": "gn", "norm.kind": "group", "norm.groups": 4, "norm.eps": 1e-3},
    ]
    words = {"type": "DATA_TYPE_STRING", "differs": True}
    assert described(*runs) == {
        "setup": words | {"displayName": "setup", "domainDiscrete": ["bn", "gn"]},
        "data.batch_size": {
            "displayName": "batch size",
            "type": "DATA_TYPE_FLOAT64",
            "differs": True,
            "domainDiscrete": [8.0, 32.0],
        },
        "norm.affine": {
            "displayName": "affine",
            "type": "DATA_TYPE_BOOL",
            "differs": True,
            "domainDiscrete": [False, True],
        },
        "model.widths": {
            "displayName": "widths",
            "type": "DATA_TYPE_STRING",
            "domainDiscrete": ["4-8"],
        },
    }, "kind, groups and ε are said by the setup"


def test_one_setup_is_no_column_unless_there_is_no_other() -> None:
    assert list(described(BASE, BASE | {"optim.lr": 0.3}, BASE | {"optim.lr": 3.0})) == ["optim.lr"]
    assert list(described(BASE, BASE)) == ["setup"]
    assert columns([]) == ()


def test_two_keys_with_the_same_words_are_called_by_their_names() -> None:
    found = described(
        BASE | {"norm.eps": 1.0, "optim.eps": 1.0}, BASE | {"norm.eps": 2.0, "optim.eps": 2.0}
    )
    assert [each["displayName"] for each in found.values()] == ["norm.eps", "optim.eps"]


def test_the_order_of_runs_does_not_matter() -> None:
    runs: list[dict[str, Plain]] = [BASE | {"optim.lr": lr} for lr in (0.3, 0.03, 3.0, 0.3)]
    assert columns(runs) == columns(runs[::-1])
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
    assert tabs.experiment(()).tensor == metadata.NULL_TENSOR
