"""The Images tab: what a network was given, and what it took it for. Arrays in, PNG out.

Drawn with Pillow alone: importing a plotting library would take longer than all else that a run
logs.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHOWN = 16
COLUMNS = 8
TILE = 56  # pixels
LINE = 15
INK = 40  # gray value
NAMED = 20
"""Classes whose names and counts fit beside and into a matrix."""


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def first_images(images: NDArray[np.float32], labels: Sequence[str]) -> bytes:
    """The first images of a batch (n, C, H, W) with their labels, on the scale of their values:
    black is the least of all that are shown, white the greatest."""
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
    """Rows are classes, columns what their images were taken for; dark is all of a row."""
    matrix = np.asarray(counts, np.float64)
    n = len(matrix)
    names = [classes[i] if i < len(classes) else str(i) for i in range(n)]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cell = 32 if n <= NAMED else max(4, 640 // n)
    margin = max((int(_font(12).getlength(name)) for name in names), default=0) + 12
    margin = min(margin, 120) if n <= NAMED else 4
    sheet = Image.new("L", (margin + n * cell + 2, margin + n * cell + 2), "white")
    draw = ImageDraw.Draw(sheet)
    for row in range(n):
        for column in range(n):
            left, top = margin + column * cell, margin + row * cell
            shade = round(255 * (1 - share[row, column]))
            draw.rectangle((left, top, left + cell - 2, top + cell - 2), shade)
            if n <= NAMED and matrix[row, column]:
                ink = 255 if shade < 128 else INK
                middle = (left + cell / 2 - 1, top + cell / 2)
                draw.text(middle, f"{matrix[row, column]:.0f}", ink, _font(11), anchor="mm")
    if n <= NAMED:
        for number, name in enumerate(names):
            at = margin + number * cell + cell / 2
            fitting = _fitting(name, margin - 8, 12)
            draw.text((margin - 6, at), fitting, INK, _font(12), anchor="rm")
            sheet.paste(_upright(fitting, margin - 6, cell - 2), (round(at - cell / 2), 0))
    return _png(sheet)


def _upright(text: str, height: int, width: int) -> Image.Image:
    """Text that is read from below."""
    label = Image.new("L", (height, width), "white")
    ImageDraw.Draw(label).text((2, width / 2), text, INK, _font(12), anchor="lm")
    return label.transpose(Image.Transpose.ROTATE_90)


def _fitting(text: str, width: int, size: int) -> str:
    """As much of a text as fits."""
    while text and _font(size).getlength(text) > width:
        text = text[:-1]
    return text


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
