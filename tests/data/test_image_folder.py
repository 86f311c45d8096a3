"""A user's own images: formats, geometry against torchvision, refusals, and the cache."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bnbench import machine, regular
from bnbench.data import dataset as memory_module
from bnbench.data import image_folder
from bnbench.data.dataset import Dataset
from bnbench.data.image_folder import load_image_folder
from bnbench.errors import DataError


def picture(seed: int, height: int = 12, width: int = 12) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two training images and one test image of each."""
    for part, count in (("train", 2), ("test", 1)):
        for number, name in enumerate(("cat", "dog")):
            inside = tmp_path / "pets" / part / name
            inside.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(picture(10 * number + k)).save(inside / f"{k}.png")
    return tmp_path / "pets"


def load(
    root: Path, *, image_size: int = 12, channels: int = 3, said: list[str] | None = None
) -> Dataset:
    announce = (lambda _: None) if said is None else said.append
    return load_image_folder(root, image_size=image_size, channels=channels, announce=announce)


def failure(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(root)
    return str(caught.value)


def decoded(path: Path, image_size: int = 12, channels: int = 3) -> NDArray[Any]:
    return image_folder._decode(path, image_size, channels)


def test_pixels_labels_and_classes(folder: Path) -> None:
    data = load(folder)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    for index, seed in enumerate((0, 1, 10, 11)):
        expected = torch.from_numpy(picture(seed)).permute(2, 0, 1)
        assert torch.equal(data.train.pixels[index], expected)
    x = data.train.pixels.double() / 255
    assert data.mean == pytest.approx(x.mean((0, 2, 3)).tolist())


def test_what_is_hidden_or_no_image_is_ignored(folder: Path) -> None:
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "cat" / ".hidden.png").write_bytes(b"no image")
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    assert len(load(folder).train) == 4


@pytest.mark.parametrize("size", [(12, 12), (40, 23), (23, 40), (7, 9), (5, 300), (64, 31)])
@pytest.mark.parametrize("channels", [1, 3])
def test_geometry_is_that_of_torchvision(
    tmp_path: Path, size: tuple[int, int], channels: int
) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    path = tmp_path / "image.png"
    Image.fromarray(picture(3, *size)).save(path)
    image = Image.open(path).convert("RGB" if channels == 3 else "L")
    theirs = np.asarray(Compose([Resize(12, InterpolationMode.BILINEAR), CenterCrop(12)])(image))
    expected = theirs[None] if channels == 1 else theirs.transpose(2, 0, 1)
    assert np.array_equal(decoded(path, channels=channels), expected)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp", "PNG"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(picture(5)).save(path, **options)
    assert np.array_equal(decoded(path).transpose(1, 2, 0), picture(5))
    assert path.suffix.lower() in regular.IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_formats(tmp_path: Path, suffix: str) -> None:
    smooth = np.linspace(0, 255, 12 * 12 * 3).reshape(12, 12, 3).astype(np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(smooth).save(path, quality=95)
    assert np.abs(decoded(path).transpose(1, 2, 0).astype(int) - smooth).max() < 12


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (12, 12), color) for color in ("red", "blue"))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert decoded(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


def test_gray_becomes_three_equal_channels(tmp_path: Path) -> None:
    gray = picture(6)[..., 0]
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert np.array_equal(decoded(tmp_path / "a.png"), np.stack([gray] * 3))
    assert np.array_equal(decoded(tmp_path / "a.png", channels=1), gray[None])


def test_transparency_is_dropped(tmp_path: Path) -> None:
    rgba = np.dstack([picture(7), np.full((12, 12), 17, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(decoded(tmp_path / "a.png").transpose(1, 2, 0), picture(7))


def test_a_palette_is_looked_up(folder: Path) -> None:
    image = Image.new("P", (12, 12), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(folder / "train" / "cat" / "0.png", transparency=b"\x00\x80")
    assert load(folder).train.pixels[0, :, 0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    deep = np.arange(144, dtype=np.uint16).reshape(12, 12) * 450
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(decoded(tmp_path / "a.png", channels=1)[0], deep >> 8)


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(picture(8))
    exif = image.getexif()
    exif[0x0112] = 6  # EXIF orientation: turn by 90° clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "a.png").transpose(1, 2, 0), np.rot90(picture(8), -1))


# --- refusals -----------------------------------------------------------------------------


def test_broken_files_are_listed(folder: Path) -> None:
    cat, dog = folder / "train" / "cat" / "1.png", folder / "test" / "dog" / "0.png"
    cat.write_bytes(b"")
    dog.write_bytes(dog.read_bytes()[:200])
    lines = failure(folder).split("\n")
    assert lines[0] == "2 images cannot be read:"
    assert lines[1].startswith(f"  {dog}: ")
    assert lines[2].startswith(f"  {cat}: cannot identify image file")
    assert lines[3:] == ["  replace or delete what is listed"]


def test_a_dangling_link_is_listed(folder: Path) -> None:
    link = folder / "train" / "cat" / "2.png"
    link.symlink_to(folder / "gone.png")
    assert failure(folder).startswith(f"1 image cannot be read:\n  {link}: [Errno 2] No such file")


def test_many_broken_files_are_counted(folder: Path) -> None:
    for k in range(2, 15):
        (folder / "train" / "cat" / f"{k}.png").write_bytes(b"no image")
    lines = failure(folder).split("\n")
    assert lines[0] == "13 images cannot be read:"
    assert lines[11:] == ["  and 3 more", "  replace or delete what is listed"]


def test_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert failure(folder) == (
        f"the images of {folder} cannot be read: [Errno 13] Permission denied\n"
        "  make them readable for this user"
    )


def test_a_class_without_images(folder: Path) -> None:
    (folder / "train" / "emu").mkdir()
    assert failure(folder).startswith(f"{folder / 'train' / 'emu'} holds no images\n  add images (")


def test_a_class_may_be_missing_in_test_only(folder: Path) -> None:
    (folder / "test" / "dog" / "0.png").unlink()
    assert load(folder).test.labels.tolist() == [0]


def test_test_has_a_class_of_its_own(folder: Path) -> None:
    (folder / "test" / "emu").mkdir()
    assert failure(folder) == (
        f"{folder / 'test'} has classes that train has not: emu\n"
        "  name the class folders of train and test alike"
    )


def test_too_large_for_memory_is_refused_before_decoding(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(b"never read")
    monkeypatch.setattr(memory_module, "available_memory", lambda: 4_200_000_000)
    with pytest.raises(DataError) as caught:
        load(folder, image_size=20_000)
    assert str(caught.value) == (
        "6 images of 3×20000×20000 need 7.2 GB; 4.2 GB are free\n"
        "  use fewer or smaller images (data.image_size), or a machine with more memory"
    )


def test_available_memory_respects_every_limit_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/user/job\n")
    groups = tmp_path / "groups"
    for name, limit in (("user", "3000000"), ("user/job", "max")):
        (groups / name).mkdir() if name != "user" else (groups / name).mkdir(parents=True)
        (groups / name / "memory.max").write_text(f"{limit}\n")
        (groups / name / "memory.current").write_text("1000000\n")
        (groups / name / "memory.stat").write_text("anon 5\ninactive_file 250000\n")
    monkeypatch.setattr(machine, "MEMINFO", meminfo)
    monkeypatch.setattr(machine, "OWN_CGROUP", own)
    monkeypatch.setattr(machine, "CGROUPS", groups)
    assert machine.available_memory() == 2_250_000
    (groups / "user" / "memory.max").write_text("max\n")
    assert machine.available_memory() == 5_120_000
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    assert machine.available_memory() is None


# --- the cache ----------------------------------------------------------------------------


def test_decoded_once(folder: Path, user_cache: Path) -> None:
    said: list[str] = []
    first = load(folder, said=said)
    again = load(folder, said=said)
    assert said == [f"decoding 6 images of {folder}"]
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert torch.equal(first.test.labels, again.test.labels)
    assert (first.classes, first.mean) == (again.classes, again.mean)
    assert len(list((user_cache / "prepared").glob("*.zip"))) == 1


@pytest.mark.parametrize("change", ["contents", "time", "added", "removed", "renamed class"])
def test_a_change_decodes_anew(folder: Path, user_cache: Path, change: str) -> None:
    said: list[str] = []
    load(folder, said=said)
    path = folder / "train" / "cat" / "1.png"
    match change:
        case "contents":
            Image.fromarray(picture(99)).save(path)
        case "time":
            os.utime(path, ns=(0, 0))
        case "added":
            Image.fromarray(picture(99)).save(path.with_name("2.png"))
        case "removed":
            path.unlink()
        case _:
            for part in ("train", "test"):
                (folder / part / "cat").rename(folder / part / "cow")
    data = load(folder, said=said)
    assert len(said) == 2
    if change == "contents":
        assert torch.equal(data.train.pixels[1], torch.from_numpy(picture(99)).permute(2, 0, 1))
    assert data.classes == (("cow", "dog") if change == "renamed class" else ("cat", "dog"))
    assert len(list((user_cache / "prepared").glob("*.zip"))) == 1  # replaced, not piled up


def test_each_size_has_its_own_copy(folder: Path) -> None:
    assert load(folder).train.pixels.shape == (4, 3, 12, 12)
    assert load(folder, image_size=8, channels=1).train.pixels.shape == (4, 1, 8, 8)
    assert load(folder).train.pixels.shape == (4, 3, 12, 12)
