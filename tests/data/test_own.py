"""Images that a function of the user's own returns: what is taken, and what is said of the rest."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset

from bnbench.data import in_order, own
from bnbench.data.batches import Standardize
from bnbench.data.dataset import Dataset, doubts, moments, pixel_moments
from bnbench.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(
    0, 256, (12, 3, 5, 7), dtype=np.uint8
)  # more rows than columns would hide swaps
LABELS = np.arange(12) % 3


class Items:
    """A map-style dataset of whatever it is given."""

    def __init__(self, *items: Any, seconds: float = 0.0) -> None:
        self._items, self._seconds = items, seconds

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        time.sleep(self._seconds)
        return self._items[index]


def gathered(train: Any, test: Any, *names: Any, scratch: Path = Path()) -> Dataset:
    return own.gathered((train, test, *names), "data.py:load", scratch)


def pillow(image: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(image.transpose(1, 2, 0))


@pytest.mark.parametrize(
    "source",
    [
        (PIXELS, LABELS),
        (PIXELS.transpose(0, 2, 3, 1), LABELS.astype(np.uint8)),
        (torch.from_numpy(PIXELS.astype(np.int64)), torch.from_numpy(LABELS)),
        (PIXELS[:, ::-1].copy()[:, ::-1], LABELS),
        (torch.from_numpy(PIXELS).to_sparse(), LABELS),
        TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
        Items(*zip(PIXELS.transpose(0, 2, 3, 1), LABELS, strict=True)),
        Items(*[(pillow(image), int(label)) for image, label in zip(PIXELS, LABELS, strict=True)]),
        Items(*[{"img": pillow(image), "id": 0, "label": label}
                for image, label in zip(PIXELS, LABELS, strict=True)]),
        [*zip(PIXELS, LABELS, strict=True)],
    ],
)  # fmt: skip
def test_every_form_gives_the_same_images(source: Any) -> None:
    found = gathered(source, source)
    assert torch.equal(found.train.pixels, torch.from_numpy(PIXELS))
    assert found.test.pixels.dtype == torch.uint8
    assert found.train.labels.tolist() == LABELS.tolist()
    assert found.classes == ("class 0", "class 1", "class 2")
    assert np.allclose(found.mean, (PIXELS / 255).mean((0, 2, 3)), atol=1e-12)
    assert np.allclose(found.std, (PIXELS / 255).std((0, 2, 3)), atol=1e-12)


def test_gray_images_without_a_channel() -> None:
    pixels = PIXELS[:, 0]
    for source in ((pixels, LABELS), Items(*zip(pixels, LABELS, strict=True))):
        assert torch.equal(gathered(source, source).train.pixels[:, 0], torch.from_numpy(pixels))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_stay_as_they_are(dtype: Any) -> None:
    values = (100 + RNG.standard_normal((40, 2, 6, 5))).astype(dtype)
    labels = np.arange(40) % 2
    found = gathered((values, labels), (values, labels))
    assert found.train.pixels.dtype == torch.float32
    exact = values.astype(np.float32).astype(np.float64)
    assert np.allclose(found.mean, exact.mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(found.std, exact.std((0, 2, 3)), rtol=1e-9)
    mean, std = pixel_moments(found.train.pixels)
    assert np.allclose(mean, exact.mean(0), rtol=1e-12)
    assert np.allclose(std, exact.std(0), rtol=1e-9)
    inputs = Standardize(found.mean, found.std)(found.train.pixels)
    expected = (exact - exact.mean((0, 2, 3), keepdims=True)) / exact.std((0, 2, 3), keepdims=True)
    assert np.allclose(inputs, expected, atol=1e-4)
    assert torch.equal(found.train.pixels, torch.from_numpy(exact).float()), "they are not changed"
    gray = Standardize((0.0,), (1.0,))(torch.rand(2, 1, 4, 4))
    assert gray.stride() == (16, 1, 4, 1), "channels last, where one channel makes it ambiguous"


def test_moments_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, floats = torch.from_numpy(PIXELS), torch.from_numpy(PIXELS.astype(np.float32))
    whole = moments(pixels), moments(floats)
    monkeypatch.setattr("bnbench.data.dataset._COUNTED", 250)
    assert moments(pixels) == whole[0]
    assert np.allclose(moments(floats), whole[1], rtol=1e-14)


def test_names() -> None:
    named: Any = TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(LABELS))
    named.classes = ["cat", "dog", "elk"]
    assert gathered(named, named).classes == ("cat", "dog", "elk")
    few = Subset(named, range(6))
    assert gathered(few, few).classes == ("cat", "dog", "elk")
    label = type("ClassLabel", (), {"names": ["x", "y", "z"]})()
    hugging_face: Any = Items(
        *[{"image": image, "label": 2 - each} for image, each in zip(*GOOD, strict=True)]
    )
    hugging_face.features = {"image": object(), "label": label}
    assert gathered(hugging_face, hugging_face).classes == ("x", "y", "z")
    assert gathered(named, named, ["a", "b", "c"]).classes == ("a", "b", "c")
    column = gathered((PIXELS, LABELS[:, None]), named)  # as MedMNIST's
    assert column.train.labels.tolist() == LABELS.tolist()


def test_numbers_that_mean_other_classes_are_refused() -> None:
    """Folders without images of a class number the later ones otherwise."""
    train, test = (TensorDataset(*map(torch.from_numpy, GOOD)) for _ in range(2))
    for each, names in ((train, ["cat", "dog", "elk"]), (test, ["cat", "elk", "fox"])):
        each.classes = names  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="class 1 is dog in train, elk in test"):
        gathered(Subset(train, range(6)), test)
    assert gathered(train, test, ["a", "b", "c"]).classes == ("a", "b", "c")
    train.classes, test.classes = [["a"], 1, 2], (["a"], "1", "2")  # type: ignore[attr-defined]
    assert gathered(train, test).classes == ("['a']", "1", "2")
    train.classes = ["cat", "dog", "elk"]  # type: ignore[attr-defined]
    test.classes = ["cat", "dog"]  # type: ignore[attr-defined]
    assert gathered(train, Subset(test, [0, 1])).classes == ("cat", "dog", "elk")


def test_slow_ones_are_decoded_by_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_order, "SERIAL_SECONDS", 0.01)
    monkeypatch.setattr(in_order, "usable_cores", lambda: 2)
    items = Items(*zip(PIXELS, LABELS, strict=True), seconds=0.01)
    found = gathered(items, (PIXELS, LABELS))
    assert torch.equal(found.train.pixels, found.test.pixels)
    assert found.train.labels.tolist() == LABELS.tolist()
    wrong = Items(*zip(PIXELS, LABELS, strict=True), (PIXELS[0, :2], 0), seconds=0.01)
    with pytest.raises(DataError, match=r"^data\.py:load: train\[12\] is 2×5×7") as caught:
        gathered(wrong, wrong)
    assert "DataLoader" not in str(caught.value)


def test_what_does_not_fit_is_written_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "fits", lambda _: False)
    items = Items(*zip(PIXELS, LABELS, strict=True))
    found = gathered(items, (PIXELS.astype(np.int32), LABELS), scratch=tmp_path / "new")
    assert torch.equal(found.train.pixels, torch.from_numpy(PIXELS))
    assert torch.equal(found.test.pixels, torch.from_numpy(PIXELS))
    assert not [*(tmp_path / "new").iterdir()], "its file has no name"
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"12 images of 3×5×7\) needs 2\.5 kB .* 1\.0 kB are free"):
        gathered(items, items, scratch=tmp_path / "new")


class Stream(IterableDataset[int]):
    """What has no length."""

    def __iter__(self) -> Any:
        yield from ()


NAN = np.where(np.arange(12)[:, None, None, None] == 7, np.nan, PIXELS / 255)
GOOD = PIXELS, LABELS


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "load returned of type NoneType"),
        ([GOOD], "load returned a list of 1"),
        ((GOOD, 5), "load: test is of type int"),
        ((GOOD, Stream()), "load: test is of type Stream"),
        ((PIXELS[:, :, 0, 0], GOOD), "load: train is of type ndarray|train"),
        (((PIXELS[0, 0], LABELS), GOOD), "train has images of the shape 5×7"),
        (((PIXELS, LABELS[:5]), GOOD), "train has 12 images, and labels of the shape 5"),
        (((PIXELS, np.eye(12)), GOOD), "labels of the shape 12×12"),
        (((PIXELS, LABELS * 1.0), GOOD), "train has labels of float64"),
        (((PIXELS[:0], LABELS[:0]), GOOD), "train has no images"),
        ((GOOD, []), "test has no images"),
        (((PIXELS, LABELS - 1), GOOD), "labels of train are -1 to 1; 2 classes"),
        ((GOOD, (PIXELS, LABELS + 1)), "labels of test are 1 to 3; 3 classes are numbered 0 to 2"),
        (((PIXELS, LABELS + 1), GOOD), "no image in train is of class 0$"),
        (((PIXELS, LABELS + 2), GOOD), "no image in train is of class 0, 1$"),
        (((PIXELS, LABELS * 10**12), GOOD), "labels of train go up to 2,000,000,000,000, of 12"),
        (((PIXELS, LABELS * 3), GOOD), "no image in train is of class 1, 2, 4, 5$"),
        ((GOOD, GOOD, "abc"), "the names of the classes are of type str"),
        ((GOOD, GOOD, ["a", "b"]), "labels of train are 0 to 2; 2 classes"),
        ((GOOD, GOOD, 3), "the names of the classes are of type int"),
        (((PIXELS[:, :, :0], LABELS), GOOD), "train has images of 3×0×7: empty"),
        (((NAN, LABELS), GOOD), r"train: image 7 has pixels that are not finite"),
        (((PIXELS.astype(np.int64) * 9, LABELS), GOOD),
         r"train: image \d has whole numbers from 0 to \d{4} as pixels"),
        (((PIXELS.astype(complex), LABELS), GOOD), "train has pixels of complex128"),
        (((PIXELS / 255, LABELS), GOOD), "train are 3×5×7 float32, of test 3×5×7 uint8"),
        (((PIXELS[..., :3], LABELS), GOOD), "its images are 12×3×5×3, of which channels"),
        ((GOOD, (PIXELS[..., :5], LABELS)), "images of train are 3×5×7 uint8, of test 3×5×5 uint8"),
        ((Items((PIXELS[0], 0), (PIXELS[0, :1], 1)), GOOD), r"train\[1\] is 1×5×7 .*3×5×7"),
        ((Items((PIXELS[0], 0.5)), GOOD), r"label of .*train\[0\] is 0\.5 \(of type float\)"),
        ((Items((PIXELS[0], None)), GOOD), r"label of .*train\[0\] is None"),
        ((Items((PIXELS[0], [0, 1])), GOOD), r"label of .*train\[0\] is \[0, 1\] \(a list of 2\)"),
        ((Items(("0.png", 0)), GOOD), r"image of .*train\[0\] is of type str"),
        ((Items(PIXELS[0]), GOOD), r"train\[0\] is of type ndarray"),
        ((Items({"x": 1, "y": 2}), GOOD), r"train\[0\] has x, y"),
        ((Items((NAN[7], 0)), GOOD), r"image of .*train\[0\] has pixels that are not finite"),
        ((Items((PIXELS[0, 0, 0], 0)), GOOD), r"image of .*train\[0\] has the shape 7"),
        ((Items((PIXELS[0, :, :0], 0)), GOOD), r"image of .*train\[0\] is"),
    ],
)  # fmt: skip
def test_what_is_said_of_the_rest(returned: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        own.gathered(returned, "data.py:load", Path())
    assert re.search(said, caught.value.what), caught.value.what
    assert caught.value.what.startswith(("data.py:load", "the ")), caught.value.what
    assert "\n" not in caught.value.what


def test_a_label_without_a_class_is_said_with_its_image() -> None:
    labels = np.where(np.arange(12) == 7, 3, LABELS)
    with pytest.raises(DataError) as caught:
        own.gathered((GOOD, (PIXELS, labels)), "data.py:load", Path())
    assert str(caught.value.do).startswith("look at test[7], which has 3: number the classes from")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 32, 32), (3, 32, 32)),
        ((32, 32, 3), (3, 32, 32)),
        ((48, 64, 3), (3, 48, 64)),
        ((13, 64, 64), (13, 64, 64)),
        ((64, 64, 13), (13, 64, 64)),
        ((64, 8, 8), (64, 8, 8)),
        ((3, 20, 4), None),
        ((13, 48, 64), None),
        ((3, 3, 3), None),
    ],
)
def test_channels_are_told_apart_or_refused(
    shape: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    values = np.zeros(shape, np.uint8)
    if expected is None:
        with pytest.raises(DataError, match="cannot be told"):
            own._channels_first(values, "the image is")
    else:
        assert own._channels_first(values, "the image is").shape == expected


@pytest.mark.parametrize(
    ("scale", "same", "told"),
    [
        (1.0, 0, []),
        (1.0, 3, []),
        (1.0, 4, ["4 of 64 test images are training images, too"]),
        (255.0, 0, ["pixels of test have mean 12"]),
    ],
)
def test_parts_that_are_not_what_they_should_be_are_told(
    scale: float, same: int, told: list[str]
) -> None:
    train, test = RNG.random((2, 64, 2, 8, 8), dtype=np.float32)
    test[:same] = train[-same - 1 : -1]
    labels = np.arange(64) % 3
    found = [*doubts(gathered((train, labels), (scale * test, labels)))]
    assert [each[: len(said)] for each, said in zip(found, told, strict=True)] == told


def test_constant_images_of_one_value_are_alike_but_the_same() -> None:
    zeros = np.zeros((8, 1, 8, 8), np.uint8), np.arange(8) % 2
    assert [*doubts(gathered(zeros, zeros))] == ["8 of 8 test images are training images, too"]
