"""The wheel alone: nothing of the repository is needed to train."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its errors where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_data_and_experiments_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "bnbench/data/bundled/fashion-mnist-12k-train.png" in names
    assert "bnbench/data/bundled/LICENSE" in names
    assert "bnbench/report/report.html" in names
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert [name.split("/licenses/")[1] for name in sorted(licences)] == [
        "bnbench/LICENSE",
        "bnbench/data/bundled/LICENSE",
    ]
    shipped = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped
    assert {f"bnbench/configs/{path.as_posix()}" for path in shipped} <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "bnbench",
        f"{'-'.join(wheel.name.split('-')[:2])}.dist-info",
    }


@pytest.mark.slow
def test_the_wheel_trains_in_a_clean_environment_from_another_folder(
    wheel: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "clean", cwd=tmp_path)
    python = tmp_path / "clean/bin/python"
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q")
    run(sys.executable, *install, wheel, cwd=tmp_path)
    # The libraries are borrowed; a folder named in a .pth file does not bring its own .pth files,
    # so that an editable installation of this repository is not found through it.
    borrowed = sysconfig.get_paths()["purelib"]
    packages = run(
        python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=tmp_path
    ).strip()
    Path(packages, "borrowed.pth").write_text(borrowed + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(python, "-c", "import bnbench; print(bnbench.__file__)", cwd=elsewhere)
    assert where.startswith(packages)
    bnbench = tmp_path / "clean/bin/bnbench"
    assert "quickstart" in run(bnbench, "configs", "list", cwd=elsewhere)
    run(bnbench, "configs", "copy", "default", cwd=elsewhere)
    budget = ("--set", "train={steps: 2}")
    said = run(bnbench, "train", "default.yaml", *budget, cwd=elsewhere)
    assert "completed: 2 steps, 128 images" in said
    assert (elsewhere / "runs" / "default").is_dir()


def test_torch_and_torchvision_are_bounded_in_pairs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "torch>=2.10,<2.15" in project["dependencies"]
    assert "torchvision>=0.25,<0.30" in project["dependencies"]


def test_git_tracks_the_bundled_data() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, (ROOT / "bnbench/data/bundled").iterdir())],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ignored.stdout == ""
