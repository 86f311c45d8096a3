"""Protocol buffers that TensorBoard reads, and the files that hold them.

A file is a row of records: 8 bytes of length and 4 of checksum, the data, 4 of checksum
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_STRING
from tensorboard.plugins.histogram.metadata import (
    create_summary_metadata as histogram_metadata,
)
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata

_BEFORE, _BEHIND = 12, 4


def scalars(values: Mapping[str, float]) -> list[Summary.Value]:
    """A value for each tag."""
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def text(tag: str, markdown: str) -> Summary.Value:
    """A card of the Text tab."""
    return strings(tag, [markdown.encode()], _metadata("text"))


def layout(tag: str, plugin: str, content: bytes) -> Summary.Value:
    """A message of a plugin that keeps it as a tensor without dimensions."""
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[content])
    return Summary.Value(tag=tag, tensor=tensor, metadata=_metadata(plugin))


def image(tag: str, png: bytes, *, describes: str) -> Summary.Value:
    """A picture of the Images tab, with a sentence on what it shows."""
    width, height = struct.unpack(">II", png[16:24])  # PNG's first chunk, IHDR
    content = [str(width).encode(), str(height).encode(), png]
    return strings(tag, content, image_metadata(None, describes))


def histogram(tag: str, low: float, high: float, counts: Sequence[int]) -> Summary.Value:
    """Counts in bins of equal width: a row of left edge, right edge and count for each."""
    width = (high - low) / len(counts)
    rows = [(low + i * width, low + (i + 1) * width, count) for i, count in enumerate(counts)]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in (len(rows), 3)])
    values = [value for row in rows for value in row]
    tensor = TensorProto(dtype=DT_DOUBLE, tensor_shape=shape, double_val=values)
    return Summary.Value(tag=tag, tensor=tensor, metadata=histogram_metadata(None, None))


def strings(tag: str, content: list[bytes], metadata: SummaryMetadata) -> Summary.Value:
    """A tensor of one dimension."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(content))])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=content)
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def _metadata(plugin: str) -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))


def record(values: Iterable[Summary.Value], *, step: int, wall_time: float) -> Event:
    """All values of a moment as one record: half the bytes and an eighth of the time."""
    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


def version(*, wall_time: float) -> Event:
    """What a file begins with."""
    return Event(wall_time=wall_time, file_version="brain.Event:2")


def encoded(records: Iterable[Event]) -> bytes:
    """Records as a file has them."""
    return b"".join(_framed(each.SerializeToString()) for each in records)


def _framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    """CRC-32C (Castagnoli), masked, since a checksum of what holds checksums is a weak one.

    TensorBoard's own function comes with a third of a second of imports.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_table() -> tuple[int, ...]:
    table = list(range(256))
    for _ in range(8):
        table = [each >> 1 ^ (0x82F63B78 if each & 1 else 0) for each in table]
    return tuple(table)


_CRC = _crc_table()


def is_whole(path: Path) -> bool:
    """Whether a file can be read and ends where a record ends; what is inside of the records is
    not looked at."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            while at + _BEFORE <= size:
                file.seek(at)
                (length,) = struct.unpack("<Q", file.read(8))
                at += _BEFORE + length + _BEHIND
            return 0 < size == at
    except OSError:
        return False
