"""Reads back what real loggers have kept of a run, each by the library's own reader or format."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, TypeAlias

from bnbench.store import RunFolder

Curves: TypeAlias = dict[str, list[tuple[int, float]]]
"""(step, value) by tag, in the order in which they are stored."""

CLOCK = ("progress/images_per_second", "summary/train_seconds", "summary/images_per_second")
"""Tags that the clock decides: an interrupted stretch is measured twice."""


@dataclass
class Kept:
    """A run in a logger."""

    name: str
    group: str
    settings: dict[str, Any]
    curves: Curves


def _curves(rows: Iterable[tuple[int, dict[str, float]]]) -> Curves:
    found: Curves = {}
    for step, values in rows:
        for tag, value in values.items():
            found.setdefault(tag, []).append((step, float(value)))
    return found


def of_wandb(folder: Path) -> list[Kept]:
    """By W&B's messages, from its offline files: https://github.com/google/leveldb/blob/main/doc/log_format.md
    with a header of seven bytes."""
    return [_of_wandb(path.read_bytes()) for path in folder.glob("wandb/offline-run-*/run-*.wandb")]


def _of_wandb(content: bytes) -> Kept:
    from wandb.proto.wandb_internal_pb2 import Record

    kept, rows, at, message = Kept("", "", {}, {}), [], 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # whole, or the last part
            continue
        record, message = Record.FromString(message), b""
        if record.HasField("run"):
            kept.name, kept.group = record.run.display_name, record.run.run_group
            kept.settings = {
                each.key: json.loads(each.value_json) for each in record.run.config.update
            }
        if record.HasField("history"):
            values = {
                each.key or "/".join(each.nested_key): json.loads(each.value_json)
                for each in record.history.item
            }
            step = record.history.step.num
            rows.append((step, {k: v for k, v in values.items() if not k.startswith("_")}))
    kept.curves = _curves(rows)
    return kept


def of_mlflow(folder: Path) -> list[Kept]:
    """By MLflow's client, from the SQLite file, by step: its order is by time, and a stretch that
    is trained again has another time."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return [
        Kept(
            run.info.run_name,
            run.data.tags["cell"],
            dict(run.data.params),
            {
                name: sorted(
                    (each.step, each.value)
                    for each in client.get_metric_history(run.info.run_id, name)
                )
                for name in run.data.metrics
            },
        )
        for run in client.search_runs(experiments)
    ]


def of_trackio(folder: Path) -> list[Kept]:
    """From trackio's SQLite files."""
    found = []
    for path in (folder / "trackio").glob("*.db"):
        with sqlite3.connect(path) as database:
            configs = database.execute("select run_id, run_name, config from configs").fetchall()
            for identifier, name, config in configs:
                rows = database.execute(
                    "select step, metrics from metrics where run_id = ? order by id", [identifier]
                )
                settings = json.loads(config)
                curves = _curves((step, json.loads(metrics)) for step, metrics in rows)
                found.append(Kept(name, settings["_Group"], settings, curves))
        database.close()
    return found


READERS: dict[str, Callable[[Path], list[Kept]]] = {
    "wandb": of_wandb,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
}


def stated(folder: RunFolder) -> Curves:
    """What `metrics.jsonl` says, by the names of curves that board/README.md and TensorBoard have;
    without those of the clock, of the end and of progress."""
    rows = []
    for each in folder.records():
        value = {key: nan if each[key] is None else each[key] for key in each}
        named: dict[str, float] = {}
        match each["event"]:
            case "step":
                named = {f"loss/train{end}": value[f"loss{end}"] for end in ("", "_max")}
                named["lr"] = value["lr"]
            case "eval":
                test, kind = each["split"] == "test", f"{each['split']}_{each['stats']}"
                for key in ("loss", "accuracy"):
                    named[f"summary/{kind}_{key}" if test else f"{key}/{kind}"] = value[key]
            case "gap":
                test = each["split"] == "test"
                for key in ("loss", "accuracy", "disagreement", "kl"):
                    named[f"summary/test_gap_{key}" if test else f"gap/{each['split']}_{key}"] = (
                        value[key]
                    )
            case "probe":
                named[f"probe_{each['probe']}/{each['layer']}/{each['name']}"] = value["value"]
            case _:
                pass
        rows.append((each["examples"], named))
    return _curves(rows)
