"""The bundled images are Zalando's, their constants are theirs, and damage is named."""

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bnbench.data import dataset as module
from bnbench.data.dataset import load_fashion_mnist_12k
from bnbench.errors import DataError
from tests.processes import completed

REPOSITORY = Path(__file__).parents[2]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


def test_shapes_and_labels() -> None:
    data = load_fashion_mnist_12k()
    assert data.train.pixels.shape == (10_000, 1, 28, 28)
    assert data.test.pixels.shape == (2_000, 1, 28, 28)
    assert data.train.pixels.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert data.train.labels.bincount().tolist() == [1000] * 10
    assert data.test.labels.bincount().tolist() == [200] * 10
    assert len(data.classes) == 10


def test_mean_and_std_are_those_of_the_training_pixels() -> None:
    data = load_fashion_mnist_12k()
    x = data.train.pixels.numpy().astype(np.float64) / 255
    assert data.mean == pytest.approx((x.mean(),), rel=1e-12)
    assert data.std == pytest.approx((x.std(),), rel=1e-12)


@needs_debian
@pytest.mark.parametrize(
    ("part", "prefix", "count"), [("train", "train", 1000), ("test", "t10k", 200)]
)
def test_every_tile_is_the_original_image(part: str, prefix: str, count: int) -> None:
    """Read by hand from the originals: not by the reader that made the sheets."""
    packed = (DEBIAN / f"{prefix}-images-idx3-ubyte.gz").read_bytes()
    images = np.frombuffer(gzip.decompress(packed)[16:], np.uint8).reshape(-1, 28, 28)
    labels = gzip.decompress((DEBIAN / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())[8:]
    loaded = getattr(load_fashion_mnist_12k(), part)
    seen = [0] * 10
    for image, label in zip(images, labels, strict=True):
        if seen[label] < count:
            index = label * count + seen[label]
            assert loaded.labels[index] == label
            assert np.array_equal(loaded.pixels[index, 0].numpy(), image)
            seen[label] += 1
    assert seen == [count] * 10


def run_script(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    script = REPOSITORY / "scripts" / "make_bundled_data"
    return completed(sys.executable, script, *arguments, code=code)


@needs_debian
@pytest.mark.slow
def test_the_script_makes_the_same_sheet_and_notices_another(tmp_path: Path) -> None:
    """Once for both, since it takes seconds."""
    for part in ("train", "test"):
        shutil.copy(module.sheet_path("train"), tmp_path / f"fashion-mnist-12k-{part}.png")
    done = run_script("--check", "--output", str(tmp_path), code=1)
    assert done.stdout.count("identical") + done.stdout.count("the same pixels") == 1
    assert "fashion-mnist-12k-test.png: differs" in done.stderr


@pytest.mark.slow
def test_the_script_refuses_what_is_not_the_original(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 1, 7))))
    done = run_script(str(tmp_path), code=1)
    assert done.stderr == f"{path}: its contents are not the original ones (sha256)\n"


def test_readme_names_the_files_as_they_are() -> None:
    text = (module.BUNDLED / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+\.png)` .* ([\d,]+) \| `(\w{64})` \|$", text, re.MULTILINE)
    assert len(rows) == 2
    for name, size, sha256 in rows:
        data = (module.BUNDLED / name).read_bytes()
        assert (f"{len(data):,}", hashlib.sha256(data).hexdigest()) == (size, sha256)
    assert "Zalando SE" in (module.BUNDLED / "LICENSE").read_text(encoding="utf-8")


@pytest.fixture
def bundled_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for part in ("train", "test"):
        shutil.copy(module.sheet_path(part), tmp_path)
    monkeypatch.setattr(module, "BUNDLED", tmp_path)
    return tmp_path / "fashion-mnist-12k-test.png"


def test_missing_sheet(bundled_copy: Path) -> None:
    bundled_copy.unlink()
    with pytest.raises(DataError) as caught:
        load_fashion_mnist_12k()
    assert str(caught.value) == f"{bundled_copy} is missing\n  reinstall bnbench"


@pytest.mark.parametrize("kept", [0, 20, 60, 5_000, 802_000])
def test_truncated_sheet(bundled_copy: Path, kept: int) -> None:
    bundled_copy.write_bytes(bundled_copy.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"is damaged: .*\n  reinstall bnbench") as caught:
        load_fashion_mnist_12k()
    assert str(caught.value).startswith(str(bundled_copy))


@pytest.mark.parametrize("place", [1, 18, 24, 30, 45, 400_000, 802_950])
def test_flipped_bits_in_a_sheet(bundled_copy: Path, place: int) -> None:
    data = bytearray(bundled_copy.read_bytes())
    data[place] ^= 0xFF
    bundled_copy.write_bytes(data)
    with pytest.raises(DataError, match=r"is damaged: .*\n  reinstall bnbench"):
        load_fashion_mnist_12k()


def test_another_picture_in_place_of_a_sheet(bundled_copy: Path) -> None:
    shutil.copy(module.sheet_path("train"), bundled_copy)
    with pytest.raises(DataError) as caught:
        load_fashion_mnist_12k()
    assert str(caught.value) == (
        f"{bundled_copy} is damaged: its pixels are not the bundled ones\n  reinstall bnbench"
    )
