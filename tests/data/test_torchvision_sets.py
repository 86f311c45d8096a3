"""torchvision's datasets: offline, prepared once; each failure is one message with what to do."""

import errno
import gzip
import os
import shutil
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from bnbench.data import torchvision_sets
from bnbench.data.dataset import Dataset
from bnbench.data.torchvision_sets import load_torchvision
from bnbench.errors import DataError
from tests.processes import LIMIT, completed

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
NAMES = [
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]
ALL_FOUR = f"{NAMES[0]}, {NAMES[1]}, {NAMES[2]} and {NAMES[3]}"


def load(
    root: Path | None, name: Any = "mnist", *, download: bool = False, said: list[str] | None = None
) -> Dataset:
    announce: Callable[[str], None] = (lambda _: None) if said is None else said.append
    return load_torchvision(name, root=root, download=download, announce=announce)


def failure(root: Path, name: str = "mnist", *, download: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        load(root, name, download=download)
    return str(caught.value)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def raw_of(root: Path) -> Path:
    return root / "MNIST" / "raw"


def same(first: Dataset, second: Dataset) -> bool:
    return (
        first.classes == second.classes
        and (first.mean, first.std) == (second.mean, second.std)
        and all(
            torch.equal(getattr(a, field), getattr(b, field))
            for a, b in ((first.train, second.train), (first.test, second.test))
            for field in ("pixels", "labels")
        )
    )


# --- Fashion-MNIST from Debian's files ----------------------------------------------------


@needs_debian
@pytest.mark.usefixtures("offline")
def test_debians_folder_itself_is_a_root(user_cache: Path) -> None:
    before = sorted(DEBIAN.iterdir())
    data = load(DEBIAN, "fashion-mnist", download=True)
    assert data.train.pixels.shape == (60_000, 1, 28, 28)
    assert data.test.labels.bincount().tolist() == [1000] * 10
    # The figures everybody knows: 0.2860 and 0.3530.
    assert data.mean == pytest.approx((0.28604,), abs=5e-6)
    assert data.std == pytest.approx((0.35302,), abs=5e-6)
    assert sorted(DEBIAN.iterdir()) == before
    assert (user_cache / "prepared" / "fashion-mnist.zip").is_file()


@needs_debian
@pytest.mark.slow
def test_same_arrays_as_torchvision(tmp_path: Path) -> None:
    import torchvision.datasets

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    data = load(tmp_path, "fashion-mnist")
    for part, train in ((data.train, True), (data.test, False)):
        theirs = torchvision.datasets.FashionMNIST(tmp_path, train=train)
        assert torch.equal(part.pixels[:, 0], theirs.data)
        assert torch.equal(part.labels, theirs.targets)
        assert data.classes == tuple(theirs.classes)


@needs_debian
def test_a_foreign_file_is_not_taken_for_fashion_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    shutil.copytree(DEBIAN, raw)
    (raw / NAMES[3]).write_bytes(gzip.compress(idx(np.zeros(10_000, np.uint8))))
    assert failure(tmp_path, "fashion-mnist") == (
        f"fashion-mnist: {raw / NAMES[3]} is damaged: its contents are not the original ones "
        "(sha256)\n  replace it with an intact copy, or delete it and set data.download: true"
    )


TWO_LOADS = """
import sys
from pathlib import Path
from bnbench.data.torchvision_sets import load_torchvision
said = []
data = load_torchvision("mnist", root=Path(sys.argv[1]), download=True, announce=said.append)
print(len(data.train), "torchvision" in sys.modules, said)
"""


@pytest.mark.slow
def test_a_prepared_copy_needs_no_torchvision(mnist: Path) -> None:
    load(mnist)
    shutil.rmtree(mnist / "MNIST")
    assert completed(sys.executable, "-c", TWO_LOADS, mnist).stdout == "60 False []\n"


# --- prepared copies ----------------------------------------------------------------------


def test_the_prepared_copy_is_the_data(mnist: Path) -> None:
    first = load(mnist)
    shutil.rmtree(mnist / "MNIST")
    again = load(mnist)
    assert same(first, again)
    again.train.pixels.zero_()  # writable, as tensors are expected to be


@pytest.mark.parametrize("damage", ["empty", "half", "flip in pixels", "flip in about", "garbage"])
def test_a_damaged_copy_is_made_again(mnist: Path, damage: str) -> None:
    first = load(mnist)
    path = mnist / "prepared" / "mnist.zip"
    intact = path.read_bytes()
    flipped = bytearray(intact)
    flipped[len(intact) // 2 if damage == "flip in pixels" else 60] ^= 1
    damaged = {"empty": b"", "half": intact[: len(intact) // 2], "garbage": b"no zip" * 999}
    path.write_bytes(damaged.get(damage, bytes(flipped)))
    said: list[str] = []
    assert same(load(mnist, said=said), first)
    assert len(said) == 1
    assert said[0].startswith(f"{path} cannot be read (")
    assert said[0].endswith("): making it again")
    assert same(load(mnist, said=said), first)
    assert len(said) == 1


def test_no_partial_copy_is_left_when_the_disk_is_full(
    mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said: list[str] = []
    assert len(load(mnist, said=said).train) == 60
    assert said == [
        f"no prepared copy of mnist is kept in {mnist / 'prepared'}: No space left on device"
    ]
    assert [path.suffix for path in (mnist / "prepared").iterdir() if path.suffix != ".lock"] == []


def test_a_read_only_root_works_without_a_copy(
    mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said: list[str] = []
    assert len(load(mnist, said=said).train) == 60
    assert said == []
    assert not (mnist / "prepared").exists()


def test_others_wait_for_the_one_that_prepares(mnist: Path) -> None:
    path = mnist / "prepared" / "mnist.zip"
    expected = load(mnist)
    intact = path.read_bytes()
    path.unlink()
    waiting = threading.Event()
    said: list[str] = []
    loaded: list[Dataset] = []

    def announce(text: str) -> None:
        said.append(text)
        waiting.set()

    def wait() -> None:
        loaded.append(load_torchvision("mnist", root=mnist, download=False, announce=announce))

    with FileLock(path.with_name("mnist.zip.lock")):
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert waiting.wait(LIMIT)
        shutil.rmtree(mnist / "MNIST")  # what the other one prepared has to be enough
        path.write_bytes(intact)
    thread.join(LIMIT)
    assert said == [f"waiting for another process that prepares {path}"]
    assert same(loaded[0], expected)


@needs_debian
@pytest.mark.slow
def test_two_processes_prepare_at_once(tmp_path: Path) -> None:
    shutil.copytree(DEBIAN, tmp_path / "FashionMNIST" / "raw")
    code = TWO_LOADS.replace('"mnist"', '"fashion-mnist"')
    with ThreadPoolExecutor() as pool:
        load_it = partial(completed, sys.executable, "-c", code, tmp_path)
        for done in [pool.submit(load_it) for _ in range(2)]:
            assert done.result().stdout.startswith("60000 False [")
    assert (tmp_path / "prepared" / "fashion-mnist.zip").is_file()


# --- missing and damaged originals --------------------------------------------------------


def test_nothing_there_and_no_download(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    folder = root / "KMNIST" / "raw"
    assert failure(root, "kmnist") == (
        f"kmnist is not in {folder}: {ALL_FOUR} missing\n"
        "  place them there, or set data.download: true"
    )
    assert not root.exists()


def test_no_permission(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert failure(mnist) == (
        f"mnist cannot be read from {mnist}: [Errno 13] Permission denied\n"
        "  make the folder readable for this user, or set data.root to another"
    )


def test_a_file_in_place_of_the_root(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("no folder")
    assert failure(path).startswith(f"mnist is not in {path / 'MNIST' / 'raw'}: {ALL_FOUR} missing")
    assert failure(path, download=True).startswith("mnist could not be fetched into ")


def test_one_file_missing(mnist: Path) -> None:
    (raw_of(mnist) / NAMES[1]).unlink()
    assert failure(mnist) == (
        f"mnist is not in {raw_of(mnist)}: {NAMES[1]} missing\n"
        "  place it there, or set data.download: true"
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-40], "not a whole gzip file (Compressed file ended before"),
        (lambda _: b"", "not an IDX file of unsigned bytes"),
        (lambda _: b"<html>moved</html>", "not a whole gzip file (Not a gzipped file"),
        (lambda _: gzip.compress(b"\0\0\x0d\1\0\0\0\0"), "not an IDX file of unsigned bytes"),
        (lambda _: gzip.compress(b"\0\0\x08\3\0\0"), "cut off within its header"),
        (
            lambda data: gzip.compress(gzip.decompress(data)[:-1]),
            "47,039 bytes of data instead of 47,040",
        ),
        (
            lambda _: gzip.compress(idx(np.zeros((59, 28, 28), np.uint8))),
            "its shape is 59×28×28 instead of 60×28×28",
        ),
        (
            lambda data: data[:5000] + bytes((data[5000] ^ 1,)) + data[5001:],
            "not a whole gzip file (",
        ),
    ],
)
def test_damaged_original(mnist: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    path = raw_of(mnist) / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    what, do = failure(mnist).split("\n")
    assert what.startswith(f"mnist: {path} is damaged: {reason}")
    assert do == "  replace it with an intact copy, or delete it and set data.download: true"
    assert not (mnist / "prepared" / "mnist.zip").exists()


def test_an_unpacked_file_helps_out_for_a_damaged_gz(mnist: Path) -> None:
    path = raw_of(mnist) / NAMES[0]
    (raw_of(mnist) / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    path.write_bytes(b"damaged")
    assert len(load(mnist).train) == 60


def test_labels_out_of_range(mnist: Path) -> None:
    path = raw_of(mnist) / NAMES[3]
    path.write_bytes(gzip.compress(idx(np.full(20, 10, np.uint8))))
    assert failure(mnist).startswith(f"mnist: {path} is damaged: it has a label 10 of 10 classes")


def test_the_default_root_is_the_users_cache(user_cache: Path, mnist: Path) -> None:
    user_cache.parent.mkdir()
    mnist.rename(user_cache)
    assert len(load(None).train) == 60
    assert (user_cache / "prepared" / "mnist.zip").is_file()


def test_sums_of_fashion_mnist_name_the_four_files() -> None:
    assert [f"{name}.gz" for name in torchvision_sets.FASHION_MNIST_SHA256] == NAMES


def test_without_a_home_folder_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> Any:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME")
    with pytest.raises(DataError, match=r"there is no home folder.*\n  set HOME"):
        load(None)
