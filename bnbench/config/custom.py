"""Files of the user's own that a `target` names: read and parsed, never run."""

from __future__ import annotations

import ast
import functools
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bnbench import regular
from bnbench.config import schema
from bnbench.errors import DataError
from bnbench.wording import PATH_LENGTH, did_you_mean, listing, nearest, shortened

MAX_BYTES = 1_000_000  # of a file of the user's own; parsing takes some hundred times as many


def custom_target(target: str) -> tuple[Path, str]:
    """The file and the class name of a `target`."""
    path, _, class_name = target.rpartition(":")
    return Path(path), class_name


def targets(config: schema.RunConfig) -> dict[str, tuple[Path, str]]:
    """What a run executes of the user's own code, a file and a class name by key."""
    return {
        f"{name}.target": custom_target(block.target)
        for name, block in (("model", config.model), ("norm", config.norm))
        if isinstance(block, schema.CustomModel | schema.CustomNormConfig)
    }


def code_of(config: schema.RunConfig) -> tuple[Path, ...]:
    """The files of the user's own code that a run executes, sorted; () sorts before all others."""
    return tuple(sorted({path for path, _ in targets(config).values()}))


def content_hash(path: Path) -> str:
    """The sha256, in hex, of the user's own file. Raises DataError where it cannot be read."""
    return hashlib.sha256(content(path)).hexdigest()


_received: dict[str, bytes] = {}


@contextmanager
def received(contents: Mapping[str, bytes]) -> Iterator[None]:
    """While inside, these contents, by path, stand for files that are on another machine."""
    _received.update(contents)
    try:
        yield
    finally:
        _received.clear()


def trouble(path: Path, class_name: str) -> tuple[str, str | None] | None:
    """What keeps a target's class from being found, and what to do; None: nothing is known to."""
    try:
        source = content(path)
    except DataError as error:
        return error.what, error.do
    names, classes, problem = _defined(source)
    where = shortened(str(path), PATH_LENGTH)
    if problem:
        return f"{where} is not Python: {problem}", None
    if names is None or class_name in names:
        return None
    there = f"it defines {shortened(listing(classes, 'and'), PATH_LENGTH)}" if classes else None
    hint = did_you_mean(nearest(class_name, classes)) or there
    return f"{where} defines no class {shortened(class_name)}", hint


def content(path: Path) -> bytes:
    """The content of the user's own file at `path`. Raises DataError."""
    try:
        return _received[str(path)] if str(path) in _received else regular.read(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"there is no file {shortened(str(path), PATH_LENGTH)}",
            do="a path in a file starts at that file's folder, one on the command line at the "
            "working directory",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = shortened(str(path), PATH_LENGTH)
        raise DataError(f"{where} cannot be read: {reason}") from error


@functools.lru_cache(maxsize=64)
def _defined(content: bytes) -> tuple[frozenset[str] | None, tuple[str, ...], str | None]:
    """Names that a source binds (None: any), its classes, and what keeps it from being parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # importing the file says them
            tree = ast.parse(content)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        return None, (), where + error.msg
    except (ValueError, RecursionError, MemoryError):
        return None, (), None  # importing the file will say what is wrong
    names: set[str] = set()
    # Wherever a name is bound: a class may be inside `if` or `try`.
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case _:
                pass
    classes = tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    return (None if "*" in names else frozenset(names)), classes, None
