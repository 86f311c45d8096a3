"""The datasets that torchvision knows how to fetch, kept decoded for the next time.

torchvision fetches and checks; its folders below `root` are its own. The IDX files of MNIST and
its kin are read here, in memory: that needs no import of torchvision (a second or two), unpacks
nothing, works in a read-only folder, and takes Debian's repacked files, whose md5 torchvision
does not know.
"""

from __future__ import annotations

import errno
import http.client
import socket
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from bnbench.data.dataset import Dataset, Images, moments
from bnbench.data.fashion12k import CLASSES as FASHION_CLASSES
from bnbench.data.idx import FASHION_MNIST_SHA256, read_idx
from bnbench.data.prepared import cache_folder, exclusively, keep_prepared, read_prepared
from bnbench.errors import DataError

TorchvisionName: TypeAlias = Literal[
    "fashion-mnist", "mnist", "kmnist", "cifar10", "cifar100", "svhn"
]

_IDX_COUNTS = {"train": 60_000, "t10k": 10_000}  # images of each part, in all three datasets
_SILENCE = 30.0  # seconds without a byte after which a server counts as out of reach


@dataclass(frozen=True, slots=True)
class _Source:
    """Where torchvision keeps a dataset: class, folder below root, files to place, MB to fetch."""

    torchvision: str
    folder: str
    files: tuple[str, ...]
    megabytes: int
    classes: tuple[str, ...] | None = None  # None: the files say


_IDX_FILES = tuple(
    f"{part}-{kind}-ubyte.gz" for part in _IDX_COUNTS for kind in ("images-idx3", "labels-idx1")
)
_DIGITS = tuple("0123456789")
# Names, files and sizes: torchvision/datasets/{mnist,cifar,svhn}.py and their servers.
_SOURCES: dict[TorchvisionName, _Source] = {
    "fashion-mnist": _Source("FashionMNIST", "FashionMNIST/raw", _IDX_FILES, 31, FASHION_CLASSES),
    "mnist": _Source("MNIST", "MNIST/raw", _IDX_FILES, 12, _DIGITS),
    "kmnist": _Source(
        "KMNIST",
        "KMNIST/raw",
        _IDX_FILES,
        21,
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "cifar10": _Source("CIFAR10", "", ("cifar-10-python.tar.gz",), 171),
    "cifar100": _Source("CIFAR100", "", ("cifar-100-python.tar.gz",), 169),
    "svhn": _Source("SVHN", "", ("train_32x32.mat", "test_32x32.mat"), 246, _DIGITS),
}


def load_torchvision(
    name: TorchvisionName,
    *,
    root: Path | None,
    download: bool,
    announce: Callable[[str], None],
) -> Dataset:
    """One of torchvision's datasets from `root`, by default the user's cache folder.

    Fashion-MNIST's four .gz may also lie in `root` itself, as in Debian's package
    dataset-fashion-mnist; such a folder is only read.
    """
    root = cache_folder() if root is None else root
    try:
        return _load(name, root, download, announce)
    except OSError as error:
        raise DataError(
            f"{name} cannot be read from {root}: {error}",
            do="make the folder readable for this user, or set data.root to another",
        ) from error


def _load(
    name: TorchvisionName, root: Path, download: bool, announce: Callable[[str], None]
) -> Dataset:
    source = _SOURCES[name]
    flat = name == "fashion-mnist" and all((root / file).is_file() for file in source.files)
    originals = root if flat else root / source.folder
    kept = (cache_folder() if flat else root) / "prepared" / f"{name}.zip"
    download = download and not flat
    ready = read_prepared(kept, name, announce)
    if ready is not None:
        return ready
    if not download:
        _require_files(name, source, originals)
    with exclusively(kept, announce) as writable:
        # Another process may have prepared it while this one waited.
        ready = read_prepared(kept, name, lambda _: None)
        if ready is None:
            if source.files == _IDX_FILES:
                ready = _load_idx(name, source, root, originals, download, announce)
            else:
                ready = _load_by_torchvision(name, source, root, download, announce)
            if writable:
                keep_prepared(kept, ready, name, announce)
    return ready


# --- MNIST and its kin --------------------------------------------------------------------


def _load_idx(
    name: TorchvisionName,
    source: _Source,
    root: Path,
    originals: Path,
    download: bool,
    announce: Callable[[str], None],
) -> Dataset:
    try:
        return _read_idx_parts(name, source, originals)
    except DataError as error:
        if not download:
            raise
        announce(error.what)
    _remove_damaged_unpacked(name, originals)
    datasets = _import_datasets()
    with _fetching(name, source, root, _fetch_action(name, source), announce):
        getattr(datasets, source.torchvision)(root, download=True)
    return _read_idx_parts(name, source, root / source.folder)


def _read_idx_parts(name: TorchvisionName, source: _Source, folder: Path) -> Dataset:
    parts = []
    for part, count in _IDX_COUNTS.items():
        pixels = _read_either(name, folder, f"{part}-images-idx3-ubyte", (count, 28, 28))
        labels = _read_either(name, folder, f"{part}-labels-idx1-ubyte", (count,))
        parts.append(_images(pixels[:, None], labels))
    assert source.classes is not None
    return _dataset(name, source.classes, parts)


def _read_either(
    name: TorchvisionName, folder: Path, stem: str, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """The array in the .gz, whose CRC guards it, or else in the file that torchvision unpacked."""
    fault = None
    for path in (folder / f"{stem}.gz", folder / stem):
        try:
            return _read_original(name, path, shape)
        except FileNotFoundError:
            continue
        except OSError as error:
            fault = fault or DataError(
                f"{name}: {path} cannot be read: {error.strerror}",
                do="make it readable for this user",
            )
        except ValueError as error:
            fault = fault or DataError(
                f"{name}: {path} is damaged: {error}",
                do="replace it with an intact copy, or delete it and set data.download: true",
            )
    raise fault or _missing(name, folder, [f"{stem}.gz"])


def _read_original(name: TorchvisionName, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    sha256 = (
        FASHION_MNIST_SHA256[path.name.removesuffix(".gz")] if name == "fashion-mnist" else None
    )
    array = read_idx(path, sha256)
    if array.shape != shape:
        found, wanted = ("×".join(map(str, sizes)) for sizes in (array.shape, shape))
        raise ValueError(f"its shape is {found} instead of {wanted}")
    if len(shape) == 1 and array.max() > 9:
        raise ValueError(f"it has a label {array.max()} of 10 classes, 0 to 9")
    return array


def _remove_damaged_unpacked(name: TorchvisionName, folder: Path) -> None:
    """torchvision takes unpacked files unread: a damaged one has to go before it fetches anew."""
    for part, count in _IDX_COUNTS.items():
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            path = folder / f"{part}-{kind}-ubyte"
            try:
                _read_original(name, path, shape)
            except ValueError:
                path.unlink()
            except OSError:
                continue


# --- CIFAR and SVHN -----------------------------------------------------------------------


def _load_by_torchvision(
    name: TorchvisionName,
    source: _Source,
    root: Path,
    download: bool,
    announce: Callable[[str], None],
) -> Dataset:
    datasets = _import_datasets()
    kind = getattr(datasets, source.torchvision)
    # torchvision unpacks an archive that is there only when it is allowed to download.
    packed = _archive_is_intact(datasets, kind, root, source)
    action = f"unpacking {source.files[0]}" if packed else _fetch_action(name, source)
    parts = []
    for part in ("train", "test"):
        which = {"split": part} if name == "svhn" else {"train": part == "train"}
        try:
            loaded = kind(root, download=False, **which)
        except RuntimeError as error:
            if not download and not packed:
                raise DataError(
                    f"{name}: the files in {root} are damaged or incomplete (checksum)",
                    do=f"place {_listed(source.files)} there, or set data.download: true",
                ) from error
            with _fetching(name, source, root, action, announce):
                loaded = kind(root, download=True, **which)
        if name == "svhn":
            parts.append(_images(loaded.data, loaded.labels))
        else:
            parts.append(_images(loaded.data.transpose(0, 3, 1, 2), np.array(loaded.targets)))
    return _dataset(name, source.classes or tuple(loaded.classes), parts)


def _archive_is_intact(datasets: Any, kind: Any, root: Path, source: _Source) -> bool:
    if not hasattr(kind, "tgz_md5"):
        return False
    return bool(datasets.utils.check_integrity(root / source.files[0], kind.tgz_md5))


# --- common to both -----------------------------------------------------------------------


def _images(pixels: NDArray[np.uint8], labels: NDArray[Any]) -> Images:
    """Arrays (N, C, H, W) and (N,) as tensors of their own."""
    return Images(
        torch.from_numpy(np.array(pixels, order="C")),
        torch.from_numpy(labels.astype(np.int64)),
    )


def _dataset(name: str, classes: tuple[str, ...], parts: list[Images]) -> Dataset:
    train, test = parts
    return Dataset(name, classes, train, test, *moments(train.pixels))


def _require_files(name: TorchvisionName, source: _Source, folder: Path) -> None:
    """Raises DataError when originals are missing, before any folder is made."""
    unpacked = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name)
    missing = [
        file
        for file in source.files
        if not (folder / file).is_file()
        and not (folder / (unpacked or file.removesuffix(".gz"))).exists()
    ]
    if missing:
        raise _missing(name, folder, missing)


def _missing(name: str, folder: Path, files: list[str]) -> DataError:
    return DataError(
        f"{name} is not in {folder}: {_listed(files)} missing",
        do=f"place {'it' if len(files) == 1 else 'them'} there, or set data.download: true",
    )


def _listed(files: tuple[str, ...] | list[str]) -> str:
    *first, last = files
    return f"{', '.join(first)} and {last}" if first else last


def _import_datasets() -> Any:
    # Here and only here: the import takes a second or two, which prepared copies save.
    import torchvision.datasets

    return torchvision.datasets


def _fetch_action(name: str, source: _Source) -> str:
    return f"fetching {name} ({source.megabytes} MB)"


@contextmanager
def _fetching(
    name: str, source: _Source, root: Path, action: str, announce: Callable[[str], None]
) -> Iterator[None]:
    """Around a download: what is going on, a limit to waiting, and every failure a DataError."""
    folder = root / source.folder
    announce(f"{action} into {folder}")
    place = f"place {_listed(source.files)} in {folder}"
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (
        OSError,
        RuntimeError,
        http.client.HTTPException,
        tarfile.TarError,
        zlib.error,
    ) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left in {folder} for {name} ({source.megabytes} MB packed)",
                do="make room, or set data.root to a folder on another disk",
            ) from error
        if code in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DataError(
                f"no permission to write {name} into {folder}",
                do=f"set data.root to a folder of yours, or have the administrator {place}",
            ) from error
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} could not be fetched into {folder}: {reason}",
            do=f"check the network, or {place}",
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
