"""The datasets that torchvision knows how to fetch, kept decoded for the next time.

torchvision fetches and checks; its folders below `root` are its own. IDX files (MNIST, KMNIST,
Fashion-MNIST) are read here, in memory: that needs no import of torchvision (a second or two),
unpacks nothing, works in a read-only folder, and takes Debian's repacked files, whose md5
torchvision does not know.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import io
import math
import socket
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnbench import regular
from bnbench.data.dataset import CLASSES, Dataset, images_of, moments
from bnbench.data.prepared import cache_folder, prepared
from bnbench.errors import DataError
from bnbench.wording import listing

TorchvisionName: TypeAlias = Literal[
    "fashion-mnist", "mnist", "kmnist", "cifar10", "cifar100", "svhn"
]

# sha256 of the unpacked originals of Fashion-MNIST. Debian's .gz differ from Zalando's in their
# gzip headers (no name, no time), so the md5 sums that torchvision knows do not hold for them.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# The shape of each array of the three datasets in IDX files, by the name of its file.
_IDX_SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
_FETCHING_FAILS = OSError, RuntimeError, http.client.HTTPException, tarfile.TarError, zlib.error
MAX_BYTES = 200_000_000  # of an IDX file, unpacked; the largest has 47,040,016
_SILENCE = 30.0  # seconds without a byte after which a server counts as out of reach


@dataclass(frozen=True, slots=True)
class _Source:
    """Where torchvision keeps a dataset: class, folder below root, files to place, MB to fetch."""

    torchvision: str
    folder: str
    files: tuple[str, ...]
    megabytes: int
    classes: tuple[str, ...] = ()  # (): the files say
    unpacked: str | None = None  # the folder that an archive becomes


_IDX_FILES = tuple(f"{name}.gz" for name in _IDX_SHAPES)
_DIGITS = tuple("0123456789")
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
# Names, files and sizes: torchvision/datasets/{mnist,cifar,svhn}.py and their servers.
_SOURCES: dict[TorchvisionName, _Source] = {
    "fashion-mnist": _Source("FashionMNIST", "FashionMNIST/raw", _IDX_FILES, 31, CLASSES),
    "mnist": _Source("MNIST", "MNIST/raw", _IDX_FILES, 12, _DIGITS),
    "kmnist": _Source("KMNIST", "KMNIST/raw", _IDX_FILES, 21, _KANA),
    "cifar10": _Source(
        "CIFAR10", "", ("cifar-10-python.tar.gz",), 171, unpacked="cifar-10-batches-py"
    ),
    "cifar100": _Source(
        "CIFAR100", "", ("cifar-100-python.tar.gz",), 169, unpacked="cifar-100-python"
    ),
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

    Fashion-MNIST's four .gz may also be in `root` itself, as in Debian's package
    dataset-fashion-mnist; such a folder is only read.
    """
    root = cache_folder() if root is None else root
    source = _SOURCES[name]
    try:
        flat = name == "fashion-mnist" and all((root / file).is_file() for file in source.files)
        originals = root if flat else root / source.folder
        loader = _Loader(name, source, root, originals, download and not flat, announce)
        kept = (cache_folder() if flat else root) / "prepared" / f"{name}.zip"
        return prepared(kept, name, loader.load, announce, loader.check)
    except OSError as error:
        raise DataError(
            f"{name} cannot be read from {root}: {error}",
            do="make the folder readable for this user, or set data.root to another",
        ) from error


@dataclass(frozen=True, slots=True)
class _Loader:
    """Reads one dataset's original files, and lets torchvision fetch them where that is allowed."""

    name: TorchvisionName
    source: _Source
    root: Path
    folder: Path
    download: bool
    announce: Callable[[str], None]

    def check(self) -> None:
        """Raise DataError where originals are missing and must not be fetched."""
        missing = [
            file
            for file in self.source.files
            if not (self.folder / file).is_file()
            and not (self.folder / (self.source.unpacked or file.removesuffix(".gz"))).exists()
        ]
        if missing and not self.download:
            raise self._missing(missing)

    def load(self) -> Dataset:
        if self.source.files != _IDX_FILES:
            return self._load_by_torchvision()
        try:
            return self._load_idx()
        except DataError as error:
            if not self.download:
                raise
            self.announce(error.what)
        self._remove_damaged_unpacked()
        import torchvision.datasets  # a second or two, which prepared copies save

        with self._fetching():
            getattr(torchvision.datasets, self.source.torchvision)(self.root, download=True)
        return self._load_idx()

    # --- IDX files ----------------------------------------------------------------------------

    def _load_idx(self) -> Dataset:
        x, y, test_x, test_y = (self._read_either(*each) for each in _IDX_SHAPES.items())
        train, test = images_of(x[:, None], y), images_of(test_x[:, None], test_y)
        return Dataset(self.name, self.source.classes, train, test, *moments(train.pixels))

    def _read_either(self, stem: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The array in the .gz, whose CRC guards it, or else in the unpacked file."""
        fault = None
        for path in (self.folder / f"{stem}.gz", self.folder / stem):
            try:
                return self._read_original(path, shape)
            except FileNotFoundError:
                continue
            except OSError as error:
                fault = fault or DataError(
                    f"{self.name}: {path} cannot be read: {error.strerror}",
                    do="make it readable for this user",
                )
            except ValueError as error:
                fault = fault or DataError(
                    f"{self.name}: {path} is damaged: {error}",
                    do="replace it with an intact copy, or delete it and set data.download: true",
                )
        raise fault or self._missing([f"{stem}.gz"])

    def _read_original(self, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        known = FASHION_MNIST_SHA256 if self.name == "fashion-mnist" else {}
        array = read_idx(path, known.get(path.name.removesuffix(".gz")))
        if array.shape != shape:
            found, wanted = ("×".join(map(str, sizes)) for sizes in (array.shape, shape))
            raise ValueError(f"its shape is {found} instead of {wanted}")
        if len(shape) == 1 and array.max() > 9:
            raise ValueError(f"it has a label {array.max()} of 10 classes, 0 to 9")
        return array

    def _remove_damaged_unpacked(self) -> None:
        """torchvision does not check unpacked files: a damaged one must go before it fetches."""
        for name, shape in _IDX_SHAPES.items():
            try:
                self._read_original(self.folder / name, shape)
            except ValueError:
                (self.folder / name).unlink()
            except OSError:
                continue

    # --- CIFAR and SVHN -----------------------------------------------------------------------

    def _load_by_torchvision(self) -> Dataset:
        import torchvision.datasets as datasets

        kind = getattr(datasets, self.source.torchvision)
        # torchvision unpacks an archive that is there only when it is allowed to download.
        md5 = getattr(kind, "tgz_md5", None)
        archive = self.source.files[0]
        packed = md5 is not None and datasets.utils.check_integrity(self.root / archive, md5)
        parts, classes = [], self.source.classes
        files = listing(self.source.files, "and")
        for part in ("train", "test"):
            which = {"split": part} if self.name == "svhn" else {"train": part == "train"}
            try:
                loaded = kind(self.root, download=False, **which)
            except RuntimeError as error:
                if not self.download and not packed:
                    raise DataError(
                        f"{self.name}: the files in {self.root} are damaged or incomplete "
                        "(checksum)",
                        do=f"place {files} there, or set data.download: true",
                    ) from error
                with self._fetching(f"unpacking {archive}" if packed else None):
                    loaded = kind(self.root, download=True, **which)
            if self.name == "svhn":
                pixels, labels = loaded.data, loaded.labels
            else:
                pixels, labels = loaded.data.transpose(0, 3, 1, 2), np.array(loaded.targets)
                classes = tuple(loaded.classes)
            parts.append(images_of(np.ascontiguousarray(pixels), labels))
        train, test = parts
        return Dataset(self.name, classes, train, test, *moments(train.pixels))

    # --- fetching -----------------------------------------------------------------------------

    def _missing(self, files: Sequence[str]) -> DataError:
        return DataError(
            f"{self.name} is not in {self.folder}: {listing(files, 'and')} missing",
            do=f"place {'it' if len(files) == 1 else 'them'} there, or set data.download: true",
        )

    @contextmanager
    def _fetching(self, action: str | None = None) -> Iterator[None]:
        """Around a download: announce it, limit waiting, make every failure a DataError."""
        name, size = self.name, f"{self.source.megabytes} MB"
        folder = self.root / self.source.folder
        self.announce(f"{action or f'fetching {name} ({size})'} into {folder}")
        place = f"place {listing(self.source.files, 'and')} in {folder}"
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_SILENCE)
        try:
            with redirect_stdout(sys.stderr):
                yield
        except _FETCHING_FAILS as error:
            code = error.errno if isinstance(error, OSError) else None
            if code in (errno.ENOSPC, errno.EDQUOT):
                what = f"no space left in {folder} for {name} ({size} packed)"
                do = "make room, or set data.root to a folder on another disk"
            elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
                what = f"no permission to write {name} into {folder}"
                do = f"set data.root to a folder of yours, or have the administrator {place}"
            else:
                reason = " ".join(str(error).split())
                what = f"{name} could not be fetched into {folder}: {reason}"
                do = f"check the network, or {place}"
            raise DataError(what, do=do) from error
        finally:
            socket.setdefaulttimeout(patience)


def read_idx(path: Path, sha256: str | None = None) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file; gzipped when its name ends in .gz.

    Format: http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
    Raises OSError when it cannot be read, ValueError when it is damaged or its unpacked bytes
    have another sha256 than the one given.
    """
    data = regular.read(path, MAX_BYTES)
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = unpacked.read(MAX_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"not a whole gzip file ({error})") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError("cut off within its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{len(data) - start:,} bytes of data instead of {math.prod(shape):,}")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its contents are not the original ones (sha256)")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
