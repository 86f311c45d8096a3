"""Files of the user's own that a `target` names, and what they import from their folder: read and
parsed, never run."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bnbench import regular
from bnbench.config import schema
from bnbench.errors import DataError
from bnbench.wording import PATH_LENGTH, did_you_mean, listing, nearest, shortened

MODULES = [{"nn.Module"}, {"torch.nn.Module"}, {"Module"}]  # whose own `__init__` takes nothing
LIBRARIES = sys.stdlib_module_names | {
    *("bnbench", "torch", "torchvision", "numpy", "scipy", "PIL", "matplotlib", "tensorboard"),
    *("typer", "rich", "yaml", "pydantic", "jinja2", "filelock"),
}
"""Of Python and of bnbench: imported before any code of the user's."""
Definition = ast.ClassDef | ast.FunctionDef
AS_BUILT = "with model.norm: swap it is built as it is, and its BatchNorms are exchanged"
MAX_BYTES = 1_000_000  # of code of the user's own; parsing takes some hundred times as many
MAX_WEIGHTS = 10_000_000_000  # bytes of a file of weights
MAX_MODULES = 1000  # of one target; more are a folder that was meant to be something else


def custom_target(target: str) -> tuple[Path, str]:
    """The file of a `target`, and the name of the class or function in it."""
    path, _, name = target.rpartition(":")
    return Path(path), name


def targets(config: schema.RunConfig) -> dict[str, tuple[Path, str]]:
    """What a run executes of the user's own code, a file and a name by key."""
    found = network_targets(config)
    if isinstance(config.data, schema.CustomData):
        found["data.target"] = custom_target(config.data.target)
    return found


def own_images(runs: Iterable[schema.RunConfig]) -> bool:
    """Whether a function of the user's own gives the images of any."""
    return any("data.target" in targets(run) for run in runs)


def network_targets(config: schema.RunConfig) -> dict[str, tuple[Path, str]]:
    """Those of `targets` that a run executes while it trains; the images were prepared before."""
    return {
        f"{name}.target": custom_target(block.target)
        for name, block in (("model", config.model), ("norm", config.norm))
        if isinstance(block, schema.CustomModel | schema.CustomNormConfig)
    }


def code_of(config: schema.RunConfig) -> tuple[Path, ...]:
    """The files of the user's own code that training executes, sorted; () sorts before others."""
    return tuple(sorted({path for path, _ in network_targets(config).values()}))


def modules(path: Path) -> dict[str, Path]:
    """Modules that the user's own file imports from its folder, directly or through another of
    them, by name, sorted; a folder that is a package without `__init__.py` stands for itself.

    A name counts where a file or folder beside the target has it, unless it is one of `LIBRARIES`.
    What is imported by a name that is only known at run time (`importlib.import_module(name)`) is
    not found.
    """
    found: dict[str, Path] = {}
    todo = list(_imported(path, ""))
    while todo and len(found) < MAX_MODULES:
        name = todo.pop()
        file = _module(path.parent, name)
        if name in found or name.partition(".")[0] in LIBRARIES or file in (None, path):
            continue
        assert file is not None
        if "." in name:
            todo.append(name.rpartition(".")[0])
        found[name] = file
        todo += _imported(file, name if file.name == "__init__.py" else name.rpartition(".")[0])
    files = [file for file in found.values() if file.suffix == ".py"]
    return {
        name: file
        for name, file in sorted(found.items())
        if file in files or any(file in each.parents for each in files)
    }


def _module(folder: Path, name: str) -> Path | None:
    """The file of a module; the folder of a package without one; None for what is elsewhere."""
    place = folder.joinpath(*name.split("."))
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if _is_there(file):
            return file
    return place if place.is_dir() else None


def _imported(path: Path, package: str) -> Iterator[str]:
    """Absolute names of what the file of a module of this package ("": of none) may import."""
    tree = _parsed(content(path)) if _is_there(path) else None
    for node in ast.walk(tree) if isinstance(tree, ast.Module) else ():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            if origin:
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in node.names if alias.name != "*")


def files_of(path: Path) -> tuple[Path, ...]:
    """The user's own file, and those that it imports from its folder."""
    return path, *(file for file in modules(path).values() if file.suffix == ".py")


def content_hash(path: Path) -> str:
    """The sha256, in hex, of the user's own file and of what it imports from its folder. Raises
    DataError where one cannot be read."""
    found = hashlib.sha256(content(path))
    for file in files_of(path)[1:]:
        inner = hashlib.sha256(content(file)).hexdigest()
        found.update(f"\0{file.relative_to(path.parent).as_posix()}\0{inner}".encode())
    return found.hexdigest()


def weights(config: schema.RunConfig) -> tuple[Path, ...]:
    """The file of weights that a run starts from, if there is one."""
    file = getattr(config.model, "pretrained", None)
    return () if file is None else (Path(file),)


def weights_hash(path: Path) -> str:
    """The sha256, in hex, of a file of weights. Raises DataError where it cannot be read."""
    with suppress(OSError, ValueError):  # reading it says what is wrong
        about = path.stat()
        return _hash(path, str(path) in _received, about.st_size, about.st_mtime_ns)
    return hashlib.sha256(content(path)).hexdigest()


@functools.lru_cache(maxsize=64)
def _hash(path: Path, *_: int) -> str:
    """The hash of a file that takes long to read: once for each size and time of change."""
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


def builds(config: schema.RunConfig, key: str) -> bool:
    """Whether a target may be a function that builds a network as it is."""
    return key == "model.target" and getattr(config.model, "norm", None) == "swap"


def trouble(path: Path, name: str, kind: str) -> tuple[str, str | None] | None:
    """What keeps a target's class or function from being found, and what to do; None: nothing is
    known to."""
    try:
        source = content(path)
    except DataError as error:
        return error.what, error.do
    where, tree = shortened(str(path), PATH_LENGTH), _parsed(source)
    if isinstance(tree, SyntaxError):
        line = f"line {tree.lineno}: " if tree.lineno else ""
        return f"{where} is not Python: {line}{tree.msg}", None
    if tree is None or {name, "*"} & _bindings(tree).keys():
        return None
    wanted = ast.FunctionDef if kind == "function" else ast.ClassDef
    known = [node.name for node in tree.body if isinstance(node, wanted)]
    there = f"it defines {shortened(listing(known, 'and'), PATH_LENGTH)}" if known else None
    hint = did_you_mean(nearest(name, known)) or there
    return f"{where} defines no {kind} {shortened(name)}", hint


def misfit(config: schema.RunConfig, key: str) -> tuple[str, str | None] | None:
    """Why the class of a target cannot be made with its `options`, and what to do.

    None: it can, or its text does not tell: where it inherits `__init__`, or is decorated.
    """
    name, positional, named = ("norm", ["channels"], list[str]())
    if key == "model.target":
        name, positional, named = ("model", [], ["in_channels", "classes", "make_norm"])
        if builds(config, key):
            named.remove("make_norm")
    named += getattr(config, name).options
    path, class_name = targets(config)[key]
    where = f"{shortened(str(path), PATH_LENGTH)}: {class_name}"
    match _init(content(path), class_name, builds(config, key)):
        case str(fault):
            return f"{where} {fault}", AS_BUILT if name == "model" else None
        case None:
            return None
        case written, signature:
            pass
    try:
        signature.bind(None, *positional, **dict.fromkeys(named))
    except TypeError as error:
        said, hint = str(error), None
        if missing := re.search("missing a required .*argument: '(.+)'", said):
            hint = f"write {name}.options: {{{missing[1]}: …}}"
        elif unknown := re.search("unexpected keyword argument '(.+)'", said):
            hint = did_you_mean(nearest(unknown[1], signature.parameters))
            hint = AS_BUILT if unknown[1] == "make_norm" else hint
        elif "positional" in said:
            hint = "it needs def __init__(self, channels, …)"
        call = ", ".join([*positional, *(f"{each}=…" for each in named)])
        return f"{where}({written}) is made as {class_name}({call}): {said}", hint
    return None


@functools.lru_cache(maxsize=64)
def _init(
    source: bytes, class_name: str, function: bool
) -> tuple[str, inspect.Signature] | str | None:
    """What the `__init__` of a class, or a `function` where that may be, takes after `self`, as
    written, and its signature; why it is no such thing; or None where the text does not tell."""
    tree = _parsed(source)
    named = _bindings(tree).get(class_name, []) if isinstance(tree, ast.Module) else []
    if len(named) != 1 or not isinstance(named[0], Definition) or named[0].decorator_list:
        return None
    if isinstance(named[0], ast.FunctionDef):
        if function:
            return _signature(named[0].args, ["self"])
        return "is a function; a class that derives from torch.nn.Module is needed"
    inside = [each for each in ast.walk(named[0]) if "__init__" in _bound(each)]
    if not inside and {ast.unparse(base) for base in named[0].bases} in MODULES:
        return "", inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)])
    if len(inside) != 1 or not isinstance(inside[0], ast.FunctionDef) or inside[0].decorator_list:
        return None
    return _signature(inside[0].args, [])


def _signature(given: ast.arguments, first: list[str]) -> tuple[str, inspect.Signature]:
    """Arguments but the first, as written, and the signature; `first`: that is not among them."""
    kind = inspect.Parameter
    places: list[tuple[ast.arg, Any]]
    places = [(ast.arg(each), kind.POSITIONAL_ONLY) for each in first]
    places += [(each, kind.POSITIONAL_ONLY) for each in given.posonlyargs]
    places += [(each, kind.POSITIONAL_OR_KEYWORD) for each in given.args]
    defaults = [kind.empty] * (len(places) - len(given.defaults)) + [None] * len(given.defaults)
    found = [
        kind(each.arg, how, default=default)
        for (each, how), default in zip(places, defaults, strict=True)
    ]
    found += [kind(each.arg, kind.VAR_POSITIONAL) for each in [given.vararg] if each]
    found += [
        kind(each.arg, kind.KEYWORD_ONLY, default=kind.empty if default is None else None)
        for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    found += [kind(each.arg, kind.VAR_KEYWORD) for each in [given.kwarg] if each]
    text = ast.unparse(given)
    written = shortened(text if first else text.partition(", ")[2], PATH_LENGTH)
    return written, inspect.Signature(found)


def content(path: Path) -> bytes:
    """The content of the user's own file at `path`. Raises DataError."""
    try:
        if str(path) in _received:
            return _received[str(path)]
        return regular.read(path, MAX_BYTES if path.suffix == ".py" else MAX_WEIGHTS)
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


def _is_there(path: Path) -> bool:
    return str(path) in _received or path.is_file()


@functools.lru_cache(maxsize=256)
def _parsed(source: bytes) -> ast.Module | SyntaxError | None:
    """A source; why it is not Python; None where only importing it says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # importing the file says them
            tree = ast.parse(source)
            compile(tree, "<custom>", "exec", dont_inherit=True)  # as for a `return` on its own
            return tree
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=64)
def _bindings(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """The nodes that bind each name, wherever they are: a class may be inside `if` or `try`."""
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(tree):
        for name in _bound(node):
            found.setdefault(name, []).append(node)
    return found


def _bound(node: ast.AST) -> Collection[str]:
    """The names that a node of a source binds."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name for alias in aliases]
        case _:
            return []
