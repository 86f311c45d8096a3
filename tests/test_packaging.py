"""The wheel alone: nothing of the repository is needed to train."""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

from tests.processes import completed

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its errors where it fails."""
    return completed(*command, cwd=cwd).stdout


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
    said = run(bnbench, "train", "my-default.yaml", *budget, cwd=elsewhere)
    assert "completed: 2 steps, 128 images" in said
    assert (elsewhere / "runs" / "my-default").is_dir()


def imported(folder: Path) -> set[str]:
    """The packages that the files below a folder import, wherever in them."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found.add(node.module.split(".")[0])
    return found


def test_what_is_imported_is_required_and_what_is_required_is_imported(wheel: Path) -> None:
    """Of the wheel; with its extras, those for developing aside."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        requirements = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])
    wanted = [each for each in requirements if not re.search("extra == .dev", each)]
    required = {re.split(r"[^\w.-]", each)[0] for each in wanted}
    packages = metadata.packages_distributions()
    imports = imported(ROOT / "bnbench") - set(sys.stdlib_module_names)
    imports -= {"bnbench", "google", "pydantic_core"}  # of protobuf and of pydantic
    imports.remove("IPython")  # it is there wherever it is asked for: in a notebook
    found = ({one.lower() for one in packages.get(each, [each])} for each in imports)
    used = {min(each & required or each) for each in found}  # mlflow's is of two packages
    assert used == required


def test_the_lowest_releases_are_those_that_are_tested() -> None:
    """`scripts/test --lowest` installs just what pyproject.toml allows at least."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = (ROOT / "scripts/lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lowest if not line.startswith("#"))
    floors = dict(each.split(">=") for each in requirements)
    assert floors.keys() == pinned.keys()
    for name, floor in floors.items():
        assert pinned[name] == floor + ".0" * (2 - floor.count(".")), name


def test_git_tracks_the_bundled_data() -> None:
    bundled = "bnbench/data/bundled"
    tracked = run("git", "ls-files", bundled, cwd=ROOT).splitlines()
    there = {path for path in (ROOT / bundled).iterdir() if path.name != "__pycache__"}
    assert {ROOT / path for path in tracked} == there
