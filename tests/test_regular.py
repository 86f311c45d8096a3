"""Whatever stands where a file should: nothing waits for it, and nothing reads without end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bnbench import cli, regular
from bnbench.data import image_folder, torchvision_sets
from bnbench.errors import DataError
from tests.processes import LIMIT


def linked(path: Path) -> None:
    os.mkfifo(f"{path}-")
    path.symlink_to(f"{path.name}-")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sock(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**13)


ODD: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "link to a pipe": linked,
    "device": endless,
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "socket": sock,
    "folder": lambda path: path.mkdir(),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
    "enormous": sparse,
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    return ODD[request.param]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bnbench.config.yaml.PIPE_SECONDS", 0.1)


def test_what_is_no_file_of_that_size_is_an_os_error(odd: Callable[[Path], None]) -> None:
    odd(Path("x"))
    with pytest.raises(OSError, match=r"\w"):
        regular.read("x", 1000)


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert regular.read(path, 5) == regular.read_piped(path, 5, 1) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        regular.read(path, 4)


@pytest.mark.parametrize("size", [0, 1, 200_000])
def test_a_pipe_is_read_to_its_end_where_it_is_welcome(size: int) -> None:
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(b"x" * size)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        assert regular.read_piped(f"/dev/fd/{reader}", 10**6, 5) == b"x" * size
    finally:
        os.close(reader)  # else it might wait for ever
        thread.join(LIMIT)


def test_a_pipe_that_never_ends_is_read_up_to_the_limit() -> None:
    os.mkfifo("endless")
    with Path("endless").open("r+b", buffering=0) as file:
        file.write(b"x" * 5000)
        with pytest.raises(OSError, match="larger than 1,000 bytes"):
            regular.read_piped("endless", 1000, 5)
        with pytest.raises(OSError, match="nothing came"):
            regular.read_piped("endless", 10**6, 0.1)


def test_a_configuration_and_a_custom_file(odd: Callable[[Path], None]) -> None:
    odd(Path("odd.py"))
    odd(Path("odd.yaml"))
    Path("t.yaml").write_text("norm: {kind: custom, target: odd.py:Layer}\n")
    for name, place in (("t.yaml", "t.yaml:1:"), ("odd.yaml", "odd.yaml")):
        for verb in ("check", "show", "copy")[: 1 if name == "t.yaml" else 3]:
            said = CliRunner().invoke(cli.app, ["configs", verb, name])
            assert said.exit_code == 2
            assert place in said.stderr or "is a folder" in said.stderr
            assert len(said.stderr.splitlines()) <= 3


def test_an_image_that_is_no_file(odd: Callable[[Path], None], tmp_path: Path) -> None:
    for image in (f"{part}/{label}/a.png" for part in ("train", "test") for label in "ab"):
        (tmp_path / image).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / image)
    odd(tmp_path / "train/a/b.png")
    with pytest.raises(DataError, match=r"1 image cannot be read:\n.*train/a/b\.png: "):
        image_folder.load_image_folder(tmp_path, image_size=8, channels=1, announce=lambda _: None)


def test_an_idx_file_that_is_no_file(odd: Callable[[Path], None], tmp_path: Path) -> None:
    odd(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises((OSError, ValueError)):
        torchvision_sets.read_idx(tmp_path / "train-images-idx3-ubyte")
