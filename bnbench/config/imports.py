"""What a file of the user's own imports from its own folder: found by reading, never by running.

A name counts where a file or folder beside the target has it, unless it is one of Python's own or
of bnbench's libraries, which are imported before any code of the user's. What is imported by a name
that is only known at run time (`importlib.import_module(name)`) is not found.
"""

from __future__ import annotations

import ast
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

Read = Callable[[Path], bytes | None]
"""The content of a file; None where there is none."""

LIBRARIES = sys.stdlib_module_names | {
    *("bnbench", "torch", "torchvision", "numpy", "scipy", "PIL", "matplotlib", "tensorboard"),
    *("typer", "rich", "yaml", "pydantic", "jinja2", "filelock"),
}

MAX_MODULES = 1000
"""Of one target; more are a folder that was meant to be something else."""


def beside(path: Path, read: Read) -> dict[str, Path]:
    """Modules that the file imports from its folder, directly or through another of them, by name,
    sorted; a folder that is a package without `__init__.py` stands for itself."""
    found: dict[str, Path] = {}
    todo = list(_imported(read(path) or b"", ""))
    while todo and len(found) < MAX_MODULES:
        name = todo.pop()
        file = _file(path.parent, name, read)
        if name in found or name.partition(".")[0] in LIBRARIES or file in (None, path):
            continue
        assert file is not None
        if "." in name:
            todo.append(name.rpartition(".")[0])
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        todo += _imported(read(file) or b"", package)
    files = [file for file in found.values() if file.suffix == ".py"]
    return {
        name: file
        for name, file in sorted(found.items())
        if file in files or any(file in each.parents for each in files)
    }


def _file(folder: Path, name: str, read: Read) -> Path | None:
    """The file of a module; the folder of a package without one; None for what is elsewhere."""
    place = folder.joinpath(*name.split("."))
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if read(file) is not None:
            return file
    return place if place.is_dir() else None


@functools.lru_cache(maxsize=256)
def _parsed(source: bytes) -> ast.AST:
    """A source; an empty one where only importing it says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Absolute names of what a module of this package ("": of none) may import."""
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            if origin:
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")
