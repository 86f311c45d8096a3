"""What TensorBoard reads: values as protocol buffers, pictures, and the files that hold them.

A file is a sequence of records: 8 bytes of length and 4 of checksum, the data, 4 of checksum
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). Pictures are
drawn with Pillow alone: importing a plotting library would take longer than all else that a run
logs.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_STRING
from tensorboard.plugins.histogram.metadata import (
    create_summary_metadata as histogram_metadata,
)
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata

_BEFORE, _AFTER = 12, 4


def scalars(values: Mapping[str, float]) -> list[Summary.Value]:
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def text(tag: str, markdown: str) -> Summary.Value:
    """A card of the Text tab."""
    return strings(tag, [markdown.encode(errors="replace")], _metadata("text"))


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
    contents = [each.SerializeToString() for each in records]
    lengths = [struct.pack("<Q", len(content)) for content in contents]
    checksums = _checksums([*lengths, *contents])
    parts = (lengths, checksums, contents, checksums[len(contents) :])
    return b"".join(chain.from_iterable(zip(*parts, strict=False)))


def _checksums(contents: Sequence[bytes]) -> list[bytes]:
    """CRC-32C (Castagnoli), masked, since a checksum of data with checksums in it is a weak one.

    TensorBoard's own is pure Python too, and takes up to 0.3 s to import: more than all else that
    a sweep with nothing left to train does with its files.
    """
    inverted = (crc ^ 0xFFFFFFFF for crc in _crcs(contents))
    masked = (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF for crc in inverted)
    return [struct.pack("<I", each) for each in masked]


_CRC = list(range(256))
for _ in range(8):
    _CRC = [each >> 1 ^ (0x82F63B78 if each & 1 else 0) for each in _CRC]
_BEGIN = bytes.fromhex("54641f64")  # its remainder is FFFFFFFF, with which a checksum begins
_ROW = 256  # bytes


@cache
def _places() -> tuple[NDArray[np.uint32], list[list[int]]]:
    """What each byte adds to the remainder of a row, by its place in it: (_ROW, 256); and the first
    four rows of that, in which the remainder of the bytes before is taken in."""
    table = np.array(_CRC, np.uint32)
    found = [table]
    for _ in range(_ROW - 1):
        found.append(table[found[-1] & 0xFF] ^ (found[-1] >> 8))
    return np.stack(found[::-1]), [each.tolist() for each in found[:-5:-1]]


def _crcs(contents: Iterable[bytes]) -> Iterator[int]:
    """The remainders, not inverted. Byte by byte, they would take a quarter of the time of a
    rebuild; but what bytes add is added by xor, so many rows are looked up at once.
    """
    begun = [_BEGIN + content for content in contents]
    counts = [-(-len(content) // _ROW) for content in begun]
    # Zeros in front change nothing.
    padded = (each.rjust(n * _ROW, b"\0") for each, n in zip(begun, counts, strict=True))
    rows = np.frombuffer(b"".join(padded), np.uint8).reshape(-1, _ROW)
    places, (first, second, third, fourth) = _places()
    found = list[int]()
    for at in range(0, len(rows), _ROW):  # not all at once: an index takes eight bytes
        added = places[np.arange(_ROW), rows[at : at + _ROW]]
        found += np.bitwise_xor.reduce(added, 1).tolist()
    each_row = iter(found)
    for n in counts:
        crc = 0
        for each in islice(each_row, n):
            before = first[crc & 0xFF] ^ second[crc >> 8 & 0xFF] ^ third[crc >> 16 & 0xFF]
            crc = each ^ before ^ fourth[crc >> 24]
        yield crc


def is_whole(path: Path) -> bool:
    """Whether a file can be read and ends where a record ends; the records are not decoded."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            while at + _BEFORE <= size:
                file.seek(at)
                (length,) = struct.unpack("<Q", file.read(8))
                at += _BEFORE + length + _AFTER
            return 0 < size == at
    except OSError:
        return False


SHOWN = 16
COLUMNS = 8
TILE = 56  # pixels
LINE = 15
INK = 40  # gray value
NAMED = 20
"""Classes whose names and counts fit into a picture of a matrix."""


class _Font(ImageFont.FreeTypeFont):
    """Most texts come again in the picture of each run, and drawing them takes most of its time."""

    getmask2: Any = lru_cache(2**12)(ImageFont.FreeTypeFont.getmask2)
    getlength: Any = lru_cache(2**12)(ImageFont.FreeTypeFont.getlength)


@cache
def _font(size: int) -> _Font:
    pillows: Any = ImageFont.load_default(size)
    return _Font(io.BytesIO(pillows.font_bytes), size, layout_engine=pillows.layout_engine)


def first_images(images: NDArray[np.float32], labels: Sequence[str]) -> bytes:
    """A PNG of the first images of a batch (n, C, H, W) with their labels: black is the smallest
    value of all that are shown, white the largest."""
    images = images[:SHOWN]
    low, high = float(images.min()), float(images.max())
    gray = (images - low) * (255 / (high - low if high > low else 1.0))
    pixels = gray.round().astype(np.uint8)
    rgb = pixels.shape[1] == 3
    columns, rows = min(COLUMNS, len(pixels)), -(-len(pixels) // COLUMNS)
    gap = 8
    size = (columns * (TILE + gap) + gap, rows * (TILE + LINE + gap) + gap)
    sheet = Image.new("RGB" if rgb else "L", size, "white")
    draw = ImageDraw.Draw(sheet)
    ink = (INK, INK, INK) if rgb else INK
    for number, (each, label) in enumerate(zip(pixels, labels, strict=False)):
        row, column = divmod(number, COLUMNS)
        left, top = gap + column * (TILE + gap), gap + row * (TILE + LINE + gap)
        tile = Image.fromarray(each.transpose(1, 2, 0) if rgb else each[0])
        enlarged = TILE % tile.width == 0 and TILE % tile.height == 0
        kind = Image.Resampling.NEAREST if enlarged else Image.Resampling.BICUBIC
        sheet.paste(tile.resize((TILE, TILE), kind), (left, top))
        draw.text((left, top + TILE + 1), _fitting(label, TILE, 11), ink, _font(11))
    return _png(sheet)


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """A PNG: rows are classes, columns what their images were taken for; dark is all of a row."""
    matrix = np.asarray(counts, np.float64)
    n = len(matrix)
    names = (" ".join(classes[i].split()) if i < len(classes) else str(i) for i in range(n))
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cell = 32 if n <= NAMED else max(4, 640 // n)
    empty, margin = _empty_matrix(tuple(names), cell)
    shades = (255 * (1 - share)).round().astype(np.uint8)
    tiles = np.full((n, cell, n, cell), 255, np.uint8)
    tiles[:, :-1, :, :-1] = shades[:, None, :, None]
    sheet = empty.copy()
    sheet.paste(Image.fromarray(tiles.reshape(n * cell, n * cell)), (margin, margin))
    draw = ImageDraw.Draw(sheet)
    for row, column in np.argwhere(matrix).tolist() if n <= NAMED else ():
        ink = 255 if shades[row, column] < 128 else INK
        middle = (margin + (column + 0.5) * cell - 1, margin + (row + 0.5) * cell)
        draw.text(middle, f"{matrix[row, column]:.0f}", ink, _font(11), anchor="mm")
    return _png(sheet)


@lru_cache
def _empty_matrix(names: Sequence[str], cell: int) -> tuple[Image.Image, int]:
    """The picture of a matrix without its cells of so many pixels, and where they begin."""
    n = len(names)
    margin = max((int(_font(12).getlength(name)) for name in names), default=0) + 12
    margin = min(margin, 120) if n <= NAMED else 4
    sheet = Image.new("L", (margin + n * cell + 2, margin + n * cell + 2), "white")
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(names if n <= NAMED else ()):
        at = margin + number * cell + cell / 2
        fitting = _fitting(name, margin - 8, 12)
        draw.text((margin - 6, at), fitting, INK, _font(12), anchor="rm")
        label = Image.new("L", (margin - 6, cell - 2), "white")
        ImageDraw.Draw(label).text((2, cell / 2 - 1), fitting, INK, _font(12), anchor="lm")
        upwards = label.transpose(Image.Transpose.ROTATE_90)
        sheet.paste(upwards, (round(at - cell / 2), 0))
    return sheet, margin


def _fitting(text: str, width: int, size: int) -> str:
    """As much of a text as fits into a line."""
    text = " ".join(text.split())
    while text and _font(size).getlength(text) > width:
        text = text[:-1]
    return text


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # of a matrix: 0.7 ms, not 1.2, for 1.6 KB more
    return buffer.getvalue()
