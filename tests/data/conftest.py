"""A cache folder of the test's own, no network where asked, and a small MNIST."""

import gzip
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnbench.data import torchvision_sets


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bnbench"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def _idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a small MNIST: 60 training and 20 test images, gzipped."""
    counts = {"train": 60, "t10k": 20}
    for name, (_, *sides) in torchvision_sets._IDX_SHAPES.items():
        shape = (counts[name.partition("-")[0]], *sides)
        monkeypatch.setitem(torchvision_sets._IDX_SHAPES, name, shape)
    random = np.random.default_rng(0)
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in counts.items():
        images = random.integers(0, 256, (n, 28, 28), np.uint8)
        labels = random.integers(0, 10, n, np.uint8)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))
    return tmp_path / "root"
