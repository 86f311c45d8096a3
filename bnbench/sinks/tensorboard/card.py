"""What TensorBoard shows of a run beside its events, and the small file that holds most of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorboard.compat.proto.summary_pb2 import Summary

from bnbench.sinks.tensorboard import hparams
from bnbench.sinks.tensorboard.hparams import Column, Plain
from bnbench.sinks.tensorboard.layout import layout
from bnbench.sinks.tensorboard.records import encoded, record, version


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Plain data about a run and its experiment.

    `started`: seconds since the epoch. `reports`: how many `Step` events will come, at most.
    `group`: what its seeds share. `columns`, `batch_sizes` (different ones), `probes`: of the
    whole experiment. `texts`: Markdown by tag. `first_batch`: a PNG.
    `pictures`: PNGs of the run as it ended, by name.
    """

    started: float
    examples_per_epoch: int
    reports: int
    group: str
    hparams: Mapping[str, Plain]
    columns: tuple[Column, ...]
    batch_sizes: int = 1
    probes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    first_batch: bytes | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def header(card: Card) -> tuple[str, bytes]:
    """Name and content of the file with the run's row of the HParams tab and the charts.

    It is a file of its own, so that it can be replaced when the experiment has grown: the name
    tells what is in it, and the first value of a tag is the one that counts. TensorBoard's slower
    loader never returns to a file that sorts before the one it reads; hence the zeros.
    """
    shared = [
        hparams.experiment(card.columns),
        layout(probes=card.probes, batch_sizes=card.batch_sizes),
    ]
    own = hparams.start(card.hparams, group=card.group, wall_time=card.started)
    digest = hashlib.sha256(b"".join(map(_bytes, [*shared, own]))).hexdigest()[:8]
    values = record([*shared, own], step=0, wall_time=card.started)
    content = encoded([version(wall_time=card.started), values])
    return f"events.out.tfevents.0000000000.{digest}.hparams", content


def _bytes(value: Summary.Value) -> bytes:
    return bytes(value.SerializeToString(deterministic=True))
