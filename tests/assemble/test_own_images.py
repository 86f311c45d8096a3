"""Images of the user's own: prepared once, trained on, refused in one sentence; by command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bnbench.assemble import inputs, own_images
from bnbench.config import loading
from bnbench.config.datasets import UnpreparedError, facts
from bnbench.config.identity import identity
from bnbench.data import prepared
from bnbench.store import RunFolder
from tests.commands import bnbench

STUDY = """\
data: {dataset: custom, target: "data.py:load", validation_size: 20, batch_size: 8}
model: {widths: [4], blocks: 1}
train: {steps: 4, evaluations: 1}
"""

ARRAYS = """\
from pathlib import Path

import numpy as np

from sizes_of_mine import SIDE


def load(noise=1.0):
    print("loading")
    with Path(__file__).with_name("calls").open("a") as calls:
        calls.write("x")
    random = np.random.default_rng(0)
    patterns = random.standard_normal((3, 1, SIDE, 7))

    def part(count):
        labels = np.arange(count) % 3
        images = patterns[labels] + noise * random.standard_normal((count, 1, SIDE, 7))
        return images.astype(np.float32), labels

    return part(90), part(30), ["cat", "dog", "elk"]
"""

FOLDER = """\
from pathlib import Path

from torchvision.datasets import ImageFolder


def load():
    here = Path(__file__).parent
    return ImageFolder(here / "train"), ImageFolder(here / "test")
"""

MAPPED = """\
from pathlib import Path

import numpy as np


def load():
    labels = np.arange(240) % 3
    images = np.load(Path(__file__).with_name("images.npy"), mmap_mode="r")
    return (images[:180], labels[:180]), (images[180:], labels[180:])
"""


@pytest.fixture(autouse=True)
def _apart(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_folder / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(inputs, "_loaded", {})
    Path("sizes_of_mine.py").write_text("SIDE = 6\n")
    Path("study.yaml").write_text(STUDY)


def said(*arguments: str, code: int = 0) -> str:
    """What a command prints in all."""
    found, out, err = bnbench(*arguments)
    assert found == code, out + err
    return out + err


def copies() -> list[Path]:
    return [*Path("cache/bnbench/prepared").glob("*.zip")]


def test_a_function_is_called_once_until_its_code_or_options_change() -> None:
    Path("data.py").write_text(ARRAYS)
    config = _run()
    with pytest.raises(UnpreparedError):
        facts(config.data)
    assert "is checked once train or sweep has prepared them" in said(
        "configs", "check", "study.yaml"
    )
    assert not Path("calls").exists(), "checking runs no code"
    out = said("train", "study.yaml", "--quiet")
    assert "runs the code in " in out
    assert f"{Path.cwd() / 'sizes_of_mine.py'} (data.target)" in out
    assert "preparing the images of data.py:load" in out
    about = facts(config.data)
    assert (about.train_images, about.test_images, about.classes) == (90, 30, 3)
    assert (about.channels, about.height, about.width, about.bytes) == (1, 6, 7, 4)
    again = said("sweep", "study.yaml", "--quiet", "--seeds", "2", "--workers", "1")
    assert "as prepared " in again
    assert Path("calls").read_text() == "x"
    Path("sizes_of_mine.py").write_text("SIDE = 8\n")
    said("train", "study.yaml", "--quiet")
    assert (Path("calls").read_text(), len(copies())) == ("xx", 1)
    assert len([*Path("runs/study").glob("*/result.json")]) == 3
    said("train", "study.yaml", "--quiet", "--set", "data.options={noise: 2.0}")
    assert (Path("calls").read_text(), len(copies())) == ("xxx", 2)
    larger = "--set=data.batch_size=71"
    assert "71 is larger than the 70 training images" in said("train", "study.yaml", larger, code=2)


def test_images_are_prepared_anew_and_runs_are_others_once_a_file_has_changed() -> None:
    """And only then: neither when it is named, nor when it is touched or moved."""
    Path("data.py").write_text(ARRAYS)
    Path("mine/images").mkdir(parents=True)
    Path("mine/images/one").write_text("1")
    plain = identity(_run())
    study = STUDY.replace("validation", "files: [mine/images, table.csv], validation")
    Path("study.yaml").write_text(study)
    missing = said("train", "study.yaml", code=2)
    assert f"data.files: {Path.cwd() / 'table.csv'} is no file and no folder of files" in missing
    Path("table.csv").write_text("a")
    before = identity(_run())
    assert before != plain
    said("train", "study.yaml", "--quiet")
    for path in ("table.csv", "mine/images/one"):
        os.utime(path, (0, 0))
    assert identity(_run()) == before
    shutil.copytree(".", "../elsewhere")
    with contextlib.chdir("../elsewhere"):
        assert identity(_run()) == before
    assert "as prepared " in said("train", "study.yaml", "--quiet")
    Path("mine/images/one").write_text("2")
    assert identity(_run()) != before
    assert "preparing the images of data.py:load" in said("train", "study.yaml", "--quiet")
    assert (Path("calls").read_text(), len(copies())) == ("xx", 1)
    assert len([*Path("runs/study").glob("*/result.json")]) == 2
    Path("study.yaml").write_text(study.replace("table.csv", "table.csv, mine/none"))
    assert "mine/none is no file" in said("sweep", "study.yaml", "--dry-run", code=2)


def _run() -> Any:
    from bnbench.config import plans

    return plans.expand(loading.load_experiment(Path("study.yaml"))).only()


def test_a_folder_of_pngs_by_torchvision() -> None:
    random = np.random.default_rng(0)
    pixels: dict[str, list[np.ndarray]] = {}
    for part, count in (("train", 30), ("test", 6)):
        for name in ("cat", "dog"):
            Path(part, name).mkdir(parents=True)
            for number in range(count):
                pixels.setdefault(part, []).append(random.integers(0, 256, (9, 8, 3), np.uint8))
                Image.fromarray(pixels[part][-1]).save(Path(part, name, f"{number:02}.png"))
    Path("data.py").write_text(FOLDER)
    said("sweep", "study.yaml", "--quiet", "--workers", "1")
    kept = own_images.load(_run().data, print)
    assert kept.classes == ("cat", "dog")
    expected = torch.from_numpy(np.stack(pixels["train"]).transpose(0, 3, 1, 2))
    assert torch.equal(kept.train.pixels, expected)
    (folder,) = (path.parent for path in Path("runs/study").glob("*/result.json"))
    manifest = RunFolder(folder).manifest_or_none()
    assert manifest is not None
    assert manifest["classes"] == ["cat", "dog"]


def test_mapped_images_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is passed on to workers: a quarter of 1 MB holds no 4 × 240 × 24 × 24 × 3 B."""
    pixels = np.random.default_rng(0).random((240, 3, 24, 24), np.float32)
    np.save("images.npy", pixels)
    Path("data.py").write_text(MAPPED)
    said("sweep", "study.yaml", "--quiet", "--workers", "1")
    (folder,) = (path.parent for path in Path("runs/study").glob("*/result.json"))
    there = json.loads((folder / "result.json").read_text())["test"]
    whole = own_images.load(_run().data, print)
    assert not whole.train.mapped
    monkeypatch.setenv("BNBENCH_MEMORY_GB", "0.004")
    mapped = own_images.load(_run().data, print)
    assert mapped.train.mapped
    assert mapped.train.pixels.data_ptr() % 64 == 0
    assert torch.equal(mapped.train.pixels, torch.from_numpy(pixels[:180]))
    assert torch.equal(mapped.test.pixels, whole.test.pixels)
    said("sweep", "study.yaml", "--quiet", "--workers", "1", "--runs-dir", "other")
    result = json.loads((Path("other/study", folder.name) / "result.json").read_text())
    assert result["test"] == there


def test_copies_of_before_are_read(tmp_path: Path) -> None:
    """One written as it was before there were floats and padding."""
    path, pixels = tmp_path / "old.zip", np.arange(24, dtype=np.uint8)
    about = {"format": 1, "fingerprint": "f", "name": "n", "classes": ["a", "b"], "mean": [0.5],
             "std": [0.1], "shape": {"train": [2, 1, 2, 3], "test": [2, 1, 2, 3]}}  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.json", json.dumps(about))
        for part, values in (("train", pixels[:12]), ("test", pixels[12:])):
            archive.writestr(f"{part}-pixels", values.tobytes())
            archive.writestr(f"{part}-labels", np.arange(2).tobytes())
    found = prepared.prepared(path, "f", lambda: pytest.fail("it is there"), print)
    assert found.test.pixels.flatten().tolist() == [*range(12, 24)]


@pytest.mark.parametrize(
    ("code", "message", "number"),
    [
        ("def load():\n    raise OSError('no disk')\n", "data.py:2: OSError: no disk", 4),
        ("import sys\ndef load():\n    sys.exit(3)\n", "data.py:3: SystemExit: 3", 4),
        ("1 / 0\ndef load(): ...\n", "data.py:1: ZeroDivisionError", 2),
        ("def load(size): ...\n", "data.options: data.py:load(size): missing a required", 4),
        ("load = 3\n", "data.target: data.py:load is no function", 4),
        ("def loda(): ...\n", "data.py defines no function load\n  did you mean loda?", 2),
        ("def load():\n    return 3\n", "data.py:load returned of type int", 4),
        (
            "class D:\n    def __len__(self): return 3\n    def __getitem__(self, i):\n"
            "        raise KeyError('x')\ndef load(): return D(), D()\n",
            "data.py:4: KeyError: 'x' (for data.py:load: train[0])",
            4,
        ),
        (
            "import time\nclass D:\n    def __len__(self): return 30\n"
            "    def __getitem__(self, i):\n        time.sleep(0.15 * (i < 1))\n"
            "        return [[i] * 8] * 8, i % 2 if i < 9 else 1 / 0\n"
            "def load(): return D(), D()\n",
            "data.py:6: ZeroDivisionError: division by zero (for data.py:load: train[9])",
            4,
        ),
    ],
)
def test_what_a_function_does_wrong_is_one_sentence(code: str, message: str, number: int) -> None:
    Path("data.py").write_text(code)
    for command in ("train", "sweep"):
        out = said(command, "study.yaml", "--quiet", code=number)
        assert message in out
        assert "Traceback" not in out
    assert not copies()


def test_what_a_function_sets_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data.py").write_text(
        "import os, random, signal, numpy as np, torch\n"
        "def load():\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN); os.environ['X_MINE'] = 'x'\n"
        "    os.chdir('/'); torch.set_default_dtype(torch.float64); print('noise')\n"
        "    drawn = [random.random(), np.random.rand(), float(torch.rand(()))]\n"
        "    images = (np.ones((9, 5, 3)) * drawn).astype(np.float32)\n"
        "    return ((images, np.arange(9) % 3),) * 2\n"
    )
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    first = own_images.load(_run().data, lambda _: None)
    assert torch.equal(torch.rand(()), expected)
    assert torch.get_default_dtype() == torch.float32
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN
    assert "X_MINE" not in os.environ
    assert Path("data.py").is_file()
    assert not out.getvalue()
    copies()[0].unlink()
    again = own_images.load(_run().data, lambda _: None)
    assert torch.equal(first.train.pixels, again.train.pixels), "what it draws is the same"


def test_a_cache_that_cannot_be_written_is_said() -> None:
    Path("data.py").write_text(ARRAYS)
    Path("cache").mkdir()
    Path("cache/bnbench").write_text("")
    out = said("train", "study.yaml", "--quiet", code=4)
    assert "XDG_CACHE_HOME" in out
    assert "Traceback" not in out
