"""Data flows one way: each package imports only the packages of its row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bnbench

PACKAGE = Path(bnbench.__file__).parent

# package, or module of the top level: (level, what it may import of ours).
PACKAGES: dict[str, tuple[int, set[str]]] = {
    "catalogue": (0, set()),
    "children": (0, set()),
    "errors": (0, set()),
    "events": (0, set()),
    "garbage": (0, set()),
    "machine": (0, set()),
    "palette": (0, set()),
    "regular": (0, set()),
    "running_statistics": (0, set()),
    "wording": (0, set()),
    "config": (1, {"errors", "machine", "regular", "wording"}),
    "norms": (1, {"errors"}),
    "models": (1, {"errors", "running_statistics"}),
    "data": (1, {"errors", "machine", "regular", "wording"}),
    "optim": (1, set()),
    "probes": (1, {"events", "running_statistics"}),
    "replay": (1, set()),
    "stats": (1, set()),
    "store": (1, {"errors", "events", "regular", "wording"}),
    "guard": (1, {"errors", "garbage", "wording"}),
    "explain": (2, {"catalogue", "config", "errors", "wording"}),
    "sinks": (2, {"errors", "events", "machine", "store", "wording"}),
    "train": (2, {"events", "probes", "replay"}),
    "assemble": (
        3,
        {
            "config",
            "data",
            "errors",
            "events",
            "guard",
            "machine",
            "models",
            "norms",
            "optim",
            "probes",
            "train",
            "wording",
        },
    ),
    "board": (
        3,
        {
            "children",
            "config",
            "errors",
            "events",
            "garbage",
            "machine",
            "palette",
            "sinks",
            "stats",
            "store",
            "wording",
        },
    ),
    "diagnosis": (
        5,
        {
            "assemble",
            "catalogue",
            "config",
            "data",
            "errors",
            "guard",
            "palette",
            "probes",
            "report",
            "running_statistics",
            "store",
            "wording",
        },
    ),
    "report": (
        4,
        {"config", "errors", "garbage", "palette", "regular", "stats", "store", "wording"},
    ),
    "runner": (
        5,
        {
            "assemble",
            "board",
            "config",
            "errors",
            "events",
            "guard",
            "machine",
            "report",
            "sinks",
            "store",
            "train",
        },
    ),
    "sweeps": (
        6,
        {
            "assemble",
            "board",
            "children",
            "config",
            "errors",
            "events",
            "garbage",
            "guard",
            "machine",
            "report",
            "runner",
            "sinks",
            "stats",
            "store",
            "wording",
        },
    ),
    "watching": (
        6,
        {
            "catalogue",
            "diagnosis",
            "errors",
            "events",
            "guard",
            "probes",
            "running_statistics",
            "sinks",
            "store",
            "wording",
        },
    ),
    "callbacks": (7, {"errors", "probes", "watching"}),
    "notebook": (
        7,
        {"assemble", "board", "config", "errors", "report", "sinks", "store", "sweeps", "wording"},
    ),
    "cli": (
        7,
        {
            "assemble",
            "board",
            "config",
            "diagnosis",
            "errors",
            "explain",
            "garbage",
            "report",
            "runner",
            "sinks",
            "stats",
            "store",
            "sweeps",
            "wording",
        },
    ),
}
# Libraries that a package may not import, not even inside functions: `--help` and `status` must
# start at once.
WITHOUT = {
    "config": {"torch", "torchvision", "numpy", "scipy"},
    "store": {"torch", "torchvision", "numpy", "scipy"},
    "stats": {"torch", "torchvision"},
    "sinks": {"torch", "torchvision", "tensorflow"},
    "board": {"torch", "torchvision", "tensorflow"},
    "report": {"torch", "torchvision"},
    "sweeps": {"torch", "torchvision", "tensorboard"},
    "train": {"tensorboard", "rich", "yaml"},
}


def package_of(path: Path) -> str:
    """The package that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(source: str) -> Iterator[str]:
    """Every module that a source names in an import, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_imported(source: str) -> set[str]:
    """Our packages among them; a bare `import bnbench` (for its version) is none."""
    found = set()
    for name in imports(source):
        parts = name.split(".")
        if parts[0] == "bnbench" and len(parts) > 1 and not parts[1].startswith("__"):
            found.add(parts[1])
    return found


FILES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py") or path.parent != PACKAGE
)


def test_files_are_found() -> None:
    assert len(FILES) > 40
    assert {package_of(path) for path in FILES} <= PACKAGES.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_the_packages_of_its_row(path: Path) -> None:
    package = package_of(path)
    source = path.read_text()
    assert packages_imported(source) - {package} <= PACKAGES[package][1]
    libraries = {name.split(".")[0] for name in imports(source)}
    assert not libraries & WITHOUT.get(package, set())


def test_every_row_names_packages_of_lower_levels() -> None:
    for package, (level, allowed) in PACKAGES.items():
        for other in allowed:
            assert PACKAGES[other][0] < level, f"{package} → {other}"


def test_an_import_inside_a_function_is_seen() -> None:
    source = "def f():\n    from bnbench.store import files\n    import bnbench.train\n"
    assert packages_imported(source) == {"store", "train"}


LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 350, 60
"""What fits in a head, and on a screen."""


def long_functions(source: str) -> dict[str, int]:
    """Functions of too many lines, from `def` to the last, and how many these are."""
    return {
        node.name: lines
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LINES_OF_A_FUNCTION
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= LINES_OF_A_FILE
    assert not long_functions(source)


def test_a_long_function_is_seen() -> None:
    inner = "\n".join(f"        x = {n}" for n in range(LINES_OF_A_FUNCTION))
    source = f"class A:\n    def f(self):\n{inner}\n"
    assert long_functions(source) == {"f": LINES_OF_A_FUNCTION + 1}


def test_no_file_of_tests_is_too_long() -> None:
    found = {path: path.read_text() for path in Path(__file__).parent.rglob("*.py")}
    assert len(found) > 250
    assert not [path for path, text in found.items() if len(text.splitlines()) > LINES_OF_A_FILE]
    assert not [path for path, text in found.items() if long_functions(text)]
