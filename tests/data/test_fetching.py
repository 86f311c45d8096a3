"""Fetching through torchvision and where it fails; CIFAR and SVHN as torchvision reads them."""

import errno
import hashlib
import os
import pickle
import shutil
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from bnbench.data.dataset import Dataset
from bnbench.data.torchvision_sets import load_torchvision
from bnbench.errors import DataError

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


# --- fetching -----------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_offline(tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    assert failure(tmp_path, "fashion-mnist", download=True) == (
        f"fashion-mnist could not be fetched into {folder}: Error downloading {NAMES[0]}: Tried "
        f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/, got: "
        "<urlopen error [Errno -2] Name or service not known>\n"
        f"  check the network, or place {ALL_FOUR} in {folder}"
    )
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
    ],
)
def test_offline_without_an_archive(tmp_path: Path, name: str, files: str) -> None:
    assert failure(tmp_path, name, download=True) == (
        f"{name} could not be fetched into {tmp_path}: "
        "<urlopen error [Errno -2] Name or service not known>\n"
        f"  check the network, or place {files} in {tmp_path}"
    )
    missing = failure(tmp_path / "other", name)
    assert missing.startswith(f"{name} is not in {tmp_path / 'other'}: {files} missing\n")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            errno.ENOSPC,
            "no space left in {folder} for mnist (12 MB packed)\n"
            "  make room, or set data.root to a folder on another disk",
        ),
        (
            errno.EACCES,
            "no permission to write mnist into {folder}\n  set data.root to a folder of yours, "
            f"or have the administrator place {ALL_FOUR} in {{folder}}",
        ),
    ],
)
def test_a_disk_that_does_not_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    import torchvision.datasets.mnist

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fail)
    assert failure(tmp_path, download=True) == message.format(folder=tmp_path / "MNIST" / "raw")


@pytest.fixture
def server(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's downloads come from this folder, with its checksums."""
    import torchvision.datasets
    from torchvision.datasets import utils

    folder = tmp_path / "server"
    raw_of(mnist).rename(folder)
    sums = [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name in NAMES]

    def fetch(url: str, filename: str) -> None:
        print("as torchvision once did")
        shutil.copy(folder / url.rsplit("/", 1)[1], filename)

    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", fetch)
    return folder


@pytest.mark.usefixtures("server")
def test_what_is_missing_is_fetched(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    assert len(load(mnist, download=True, said=said).train) == 60
    assert said == [
        f"mnist is not in {raw_of(mnist)}: {NAMES[0]} missing",
        f"fetching mnist (12 MB) into {raw_of(mnist)}",
    ]
    assert capsys.readouterr().out == ""
    load(mnist, download=True, said=said)
    assert len(said) == 2


@pytest.mark.usefixtures("server")
def test_what_is_damaged_is_fetched_again(mnist: Path) -> None:
    said: list[str] = []
    expected = load(mnist, download=True)
    shutil.rmtree(mnist / "prepared")
    for path in (raw_of(mnist) / NAMES[0], raw_of(mnist) / NAMES[0].removesuffix(".gz")):
        path.write_bytes(path.read_bytes()[:1000])
    assert same(load(mnist, download=True, said=said), expected)
    assert said[0].startswith(f"mnist: {raw_of(mnist) / NAMES[0]} is damaged: ")


def test_what_arrives_damaged_is_said(mnist: Path, server: Path) -> None:
    (server / NAMES[0]).write_bytes(b"captive portal")
    message = failure(mnist, download=True)
    assert message.startswith(f"mnist could not be fetched into {raw_of(mnist)}: ")
    assert "File not found or corrupted." in message


# --- CIFAR and SVHN -----------------------------------------------------------------------


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a small CIFAR-10 whose checksums torchvision is told."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    for name in names:
        data = random.integers(0, 256, (4, 3072), np.uint8)
        batch = {"data": data, "labels": random.integers(0, 10, 4).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [*"abcdefghij"]}))
    sums = [[name, md5(folder / name)] for name in names]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return tmp_path / "root"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("download", [False, True])
def test_cifar(cifar: Path, download: bool) -> None:
    data = load(cifar, "cifar10", download=download)
    assert data.train.pixels.shape == (20, 3, 32, 32)
    assert data.classes == tuple("abcdefghij")
    batch = pickle.loads((cifar / "cifar-10-batches-py" / "data_batch_2").read_bytes())
    # CIFAR's rows are red, green, blue planes: already (C, H, W).
    assert torch.equal(data.train.pixels[4:8], torch.from_numpy(batch["data"]).view(4, 3, 32, 32))
    assert data.train.labels[4:8].tolist() == batch["labels"]


@pytest.mark.usefixtures("offline")
@pytest.mark.filterwarnings(
    "ignore:Python 3.14 will:DeprecationWarning"
)  # torchvision's extractall
def test_cifar_is_unpacked_without_download(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    with tarfile.open(cifar / CIFAR10.filename, "w:gz") as archive:
        archive.add(cifar / CIFAR10.base_folder, CIFAR10.base_folder)
    shutil.rmtree(cifar / CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(cifar / CIFAR10.filename))
    said: list[str] = []
    assert len(load(cifar, "cifar10", said=said).train) == 20
    assert said == [f"unpacking cifar-10-python.tar.gz into {cifar}"]


def test_cifar_damaged(cifar: Path) -> None:
    (cifar / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    assert failure(cifar, "cifar10") == (
        f"cifar10: the files in {cifar} are damaged or incomplete (checksum)\n"
        "  place cifar-10-python.tar.gz there, or set data.download: true"
    )


@pytest.mark.usefixtures("offline")
def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import SVHN

    random = np.random.default_rng(2)
    images = random.integers(0, 256, (32, 32, 3, 6), np.uint8)
    labels = np.array([[10], [1], [2], [9], [10], [5]], np.uint8)
    listed = dict(SVHN.split_list)
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": images, "y": labels})
        listed[part] = [listed[part][0], path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", listed)
    data = load(tmp_path, "svhn")
    assert data.train.labels.tolist() == [0, 1, 2, 9, 0, 5]  # the digit 0 is stored as 10
    assert torch.equal(data.test.pixels[3], torch.from_numpy(images[..., 3]).permute(2, 0, 1))
