"""How many images of which shape a dataset has, and how many steps an epoch and a run have."""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bnbench import regular
from bnbench.config import schema
from bnbench.config.custom import content_hash, custom_target
from bnbench.errors import DataError
from bnbench.machine import cache_folder
from bnbench.wording import PATH_LENGTH, shortened


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Counts of images and classes; `height` and `width` in pixels, each of `bytes` a channel.

    `fingerprint`, of an image folder, changes with any name or size of an image.
    """

    train_images: int
    test_images: int
    classes: int
    channels: int
    height: int
    width: int
    bytes: int = 1
    fingerprint: str = ""


# Counts as published with each dataset; torchvision's default splits.
DATASETS: dict[str, DatasetFacts] = {
    "fashion-mnist-12k": DatasetFacts(10_000, 2_000, 10, 1, 28, 28),
    "fashion-mnist": DatasetFacts(60_000, 10_000, 10, 1, 28, 28),
    "mnist": DatasetFacts(60_000, 10_000, 10, 1, 28, 28),
    "kmnist": DatasetFacts(60_000, 10_000, 10, 1, 28, 28),
    "cifar10": DatasetFacts(50_000, 10_000, 10, 3, 32, 32),
    "cifar100": DatasetFacts(50_000, 10_000, 100, 3, 32, 32),
    "svhn": DatasetFacts(73_257, 26_032, 10, 3, 32, 32),
}


def facts(data: schema.DataConfig) -> DatasetFacts:
    """The facts of any dataset. Raises DataError for an image folder that is not there, and
    UnpreparedError."""
    if _received and (there := _received.get(source(data))) is not None:
        return there
    match data:
        case schema.Fashion12kData() | schema.TorchvisionData():
            return DATASETS[data.dataset]
        case schema.SyntheticData():
            counts = data.train_images, data.test_images, data.classes
            return DatasetFacts(*counts, data.channels, data.image_size, data.image_size)
        case schema.ImageFolderData():
            return folder_facts(data.root, data.channels, data.image_size)
        case schema.CustomData():
            return prepared_facts(data)


_received: dict[str, DatasetFacts] = {}


@contextmanager
def received(elsewhere: Mapping[str, DatasetFacts]) -> Iterator[None]:
    """While inside, these facts, by source, are those of datasets on another machine."""
    _received.update(elsewhere)
    try:
        yield
    finally:
        _received.clear()


def source(data: schema.DataConfig) -> str:
    """The same for all configurations that read the same images."""
    usage = {
        name: field.default
        for name, field in schema.ImageData.model_fields.items()
        if name not in ("root", "download")
    }
    return data.model_copy(update=usage).model_dump_json()


def on_disk(data: schema.DataConfig) -> bool:
    """Whether its images are outside of the package."""
    return not isinstance(data, schema.Fashion12kData | schema.SyntheticData)


class UnpreparedError(DataError):
    """Nothing is known of images that a function of the user's own has yet to return."""


def prepared_copy(data: schema.CustomData) -> tuple[Path | None, str]:
    """The file in which the images of a function are kept, and the hash of the code that returned
    them and of `files`. Raises DataError where those cannot be read."""
    path, function = custom_target(data.target)
    words = json.dumps([str(path), function, data.options], sort_keys=True)
    name = f"custom-{hashlib.sha256(words.encode()).hexdigest()[:16]}.zip"
    folder = cache_folder()
    fingerprint = content_hash(path)
    if data.files:
        fingerprint = hashlib.sha256((fingerprint + files_hash(data.files)).encode()).hexdigest()
    return folder and folder / "prepared" / name, fingerprint


@functools.cache
def files_hash(files: tuple[str, ...]) -> str:
    """The sha256, in hex, of the content of files and of all files in folders, with their names
    from there on; read once a process. Raises DataError where one cannot be read."""
    digest = hashlib.sha256()
    for each in files:
        top, where = Path(each), shortened(each, PATH_LENGTH)
        try:
            inside = sorted(path for path in top.rglob("*") if path.is_file())
            paths = inside if top.is_dir() else [top]
            if not all(path.is_file() for path in paths) or not paths:
                do = "name files, or folders that hold some"
                raise DataError(f"{where} is no file and no folder of files", do=do)
            for path in paths:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                name = path.relative_to(top.parent).as_posix()
                digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def prepared_facts(data: schema.CustomData) -> DatasetFacts:
    """What the prepared copy says of itself. Raises UnpreparedError where there is none."""
    path, fingerprint = prepared_copy(data)
    if path is None or not path.is_file():
        raise UnpreparedError(f"data.target: {data.target} has not been prepared")
    return _said_of(path, fingerprint)


@functools.cache
def _said_of(path: Path, fingerprint: str) -> DatasetFacts:
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("about.json"))
        if about["fingerprint"] != fingerprint:
            raise ValueError("it is of other code")
        train, channels, height, width = map(int, about["shape"]["train"])
        counts = train, int(about["shape"]["test"][0]), len(about["classes"])
        size = 4 if about.get("dtype") == "float32" else 1
        return DatasetFacts(*counts, channels, height, width, size)
    except Exception as error:  # damaged bytes make zipfile, json and zlib raise a dozen kinds
        raise UnpreparedError(f"{path} cannot be used: {error}") from error


@functools.cache
def folder_facts(root: str, channels: int, side: int) -> DatasetFacts:
    """Counts of `root/train/<class>/*` and `root/test/<class>/*`, read once a process.

    Raises DataError where a part is missing or holds no images.
    """
    digest = hashlib.sha256()
    found: dict[str, list[tuple[str, int]]] = {}
    for part in ("train", "test"):
        top = Path(root, part)
        found[part] = _images(top)
        if not found[part]:
            where = shortened(str(top), PATH_LENGTH)
            raise DataError(f"{where} holds no images", do=f"they belong in {where}/<class>/")
        for name, size in found[part]:
            digest.update(f"{part}/{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    classes = {name.split("/", 1)[0] for name, _ in found["train"]}
    images = len(found["train"]), len(found["test"])
    return DatasetFacts(*images, len(classes), channels, side, side, 1, digest.hexdigest())


def _images(top: Path) -> list[tuple[str, int]]:
    """Relative names and sizes in bytes of the images in the class folders, sorted."""
    where = shortened(str(top), PATH_LENGTH)
    try:
        if not top.is_dir():
            raise DataError(f"{where} is not a folder", do="an image folder holds train/ and test/")
        return sorted(
            (f"{label}/{path.name}", path.stat().st_size)
            for label, paths in regular.images_by_class(top).items()
            for path in paths
        )
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from error


def forget() -> None:
    """Read folders and files again: they may change between two studies of one process."""
    folder_facts.cache_clear()
    files_hash.cache_clear()


# --- budgets ---------------------------------------------------------------------------------


def steps_per_epoch(train_images: int, batch_size: int, drop_last: bool) -> int:
    """Optimizer steps of one pass; raises ValueError where not even one batch can be had."""
    steps = train_images // batch_size if drop_last else -(-train_images // batch_size)
    if steps < 1:
        raise ValueError(f"{train_images} training images do not fill a batch of {batch_size}")
    return steps


def total_steps(
    train: schema.TrainConfig, train_images: int, batch_size: int, drop_last: bool
) -> int:
    """Optimizer steps of a run.

    A fraction of an epoch is rounded to whole steps, at least one. A budget of examples is never
    undershot; without `drop_last` an epoch's last batch counts with its own, smaller size.
    """
    epoch = steps_per_epoch(train_images, batch_size, drop_last)
    if train.steps is not None:
        return train.steps
    if train.examples is not None:
        if drop_last:
            return -(-train.examples // batch_size)
        passes, rest = divmod(train.examples, train_images)
        return passes * epoch + -(-rest // batch_size)
    assert train.epochs is not None  # TrainConfig sees to it
    return max(1, round(train.epochs * epoch))


def checkpoint_interval(train: schema.TrainConfig) -> tuple[float | None, int | None]:
    """Seconds between checkpoints and steps between them; at most one is not None."""
    every = train.checkpoint_every
    if isinstance(every, str):
        return float(every.removesuffix("s")), None
    return None, every
