"""Pictures, looked at pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bnbench.sinks.tensorboard.records import confusion_matrix, first_images


def pixels(png: bytes) -> NDArray[np.uint8]:
    """What a PNG shows."""
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_first_images_span_black_to_white() -> None:
    images = np.zeros((20, 1, 28, 28), np.float32)
    images[0] = -3.0
    images[1] = 1.0
    images[17] = 99.0  # beyond the sixteen that are shown
    sheet = pixels(first_images(images, [str(i) for i in range(20)]))
    assert sheet.shape == (2 * (56 + 15 + 8) + 8, 8 * (56 + 8) + 8)
    tiles = [sheet[8 + 28, 8 + 28 + 64 * i] for i in range(3)]
    assert tiles == [0, 255, 191]  # −3, 1 and 0 on a scale from −3 to 1


def test_three_channels_are_colours_and_odd_sizes_fit() -> None:
    images = np.zeros((2, 3, 20, 33), np.float32)
    images[0, 0] = 1.0
    sheet = pixels(first_images(images, ["a name that is far too long for its tile", ""]))
    assert sheet.shape == (56 + 15 + 16, 2 * 64 + 8, 3)
    assert sheet[36, 36].tolist() == [255, 0, 0]
    assert sheet[36, 36 + 64].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_constant_batch_is_drawn(value: float) -> None:
    sheet = pixels(first_images(np.full((1, 1, 28, 28), value, np.float32), ["x"]))
    assert sheet[36, 36] == 0


def test_a_matrix_shows_the_share_of_each_row() -> None:
    counts = [[30, 0, 0], [5, 10, 5], [0, 0, 0]]
    sheet = pixels(confusion_matrix(counts, ["ant", "bee", "cow"]))
    margin = len(sheet) - 2 - 3 * 32
    corners = sheet[margin + 1 :: 32, margin + 1 :: 32][:3, :3]
    assert corners.tolist() == [[0, 255, 255], [191, 128, 191], [255, 255, 255]]


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 100])
def test_a_matrix_of_any_size_fits_a_page(classes: int) -> None:
    counts = np.eye(classes, dtype=int) * 7
    png = confusion_matrix(counts.tolist(), ["a rather long name of a class"] * classes)
    height, width = pixels(png).shape
    assert height == width <= 800
    assert len(png) < 50_000


def test_classes_without_a_name_have_a_number() -> None:
    unnamed = confusion_matrix([[1, 0], [0, 1]], [])
    assert unnamed == confusion_matrix([[1, 0], [0, 1]], ["0", "1"])
    assert unnamed != confusion_matrix([[1, 0], [0, 1]], ["1", "0"])


def test_a_matrix_has_nothing_of_the_one_before() -> None:
    first = confusion_matrix([[3, 1], [0, 4]], ["ant", "bee"])
    wide = 12_345_678  # over the edges of its cell
    assert first != confusion_matrix([[wide, 5], [5, 5]], ["ant", "bee"])
    assert first == confusion_matrix([[3, 1], [0, 4]], ["ant", "bee"])


def test_names_of_several_lines_are_one() -> None:
    images = np.zeros((1, 1, 28, 28), np.float32)
    assert first_images(images, ["a\nb"]) == first_images(images, ["a b"])
    counts = [[1, 0], [0, 1]]
    assert confusion_matrix(counts, ("a\nb", "c")) == confusion_matrix(counts, ("a b", "c"))
