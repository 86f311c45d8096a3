"""Classes in files of the user's own: the only code here that bnbench does not know."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from bnbench.config import custom, feasible, schema
from bnbench.errors import BnbenchError, ConfigError, Fault
from bnbench.guard import Raised, foreign_code

PREFIX = "bnbench_custom_"
_before: dict[str, ModuleType] = {}  # what `forget` has forgotten


def guarded(
    config: schema.RunConfig, raises: Callable[[Raised], BnbenchError]
) -> AbstractContextManager[None]:
    """What the network of a run is called in: code of the user's own is guarded, as `foreign_code`
    says; bnbench's own is not, and costs nothing more. Where no line of it is known, its file is
    named."""

    def placed(raised: Raised) -> BnbenchError:
        files = dict.fromkeys(path.name for path, _ in custom.network_targets(config).values())
        raised.place = raised.place or (f"{' or '.join(files)}: " if files else "")
        return raises(raised)

    return foreign_code(placed) if feasible.opaque(config) else nullcontext()


def named(config: schema.RunConfig) -> str:
    """The classes of the user's own in a run, e.g. `my.py:Layer (norm.target)`; "" for none."""
    found = custom.network_targets(config).items()
    return " and ".join(f"{path.name}:{name} ({key})" for key, (path, name) in found)


def load_class(target: str, key: str) -> type[nn.Module]:
    """The class that a `target` names, from its file. Raises ConfigError naming `key`, or
    DataError."""
    found = _loaded(target, key)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise _fault(target, f"{key}: {custom.custom_target(target)[1]} is not a torch.nn.Module")
    return found


def load_function(target: str, key: str) -> Callable[..., object]:
    """The function or class that a `target` names, from its file. Raises as `load_class`."""
    found = _loaded(target, key)
    if not callable(found):
        raise _fault(
            target, f"{key}: {custom.custom_target(target)[1]} is no function and no class"
        )
    return found


def _loaded(target: str, key: str) -> object:
    path, name = custom.custom_target(target)
    found: object = getattr(load_module(path, target, key), name, None)
    if found is None:
        raise _fault(target, f"{key}: the file defines no {name}")
    return found


def forget() -> None:
    """Have files of the user's own run again where they are loaded next: what a run has left in
    their globals, as a network that was made once, is no part of the next run."""
    for name in [*sys.modules]:
        if name.startswith(PREFIX) or name in _beside.offered:
            _before[name] = sys.modules.pop(name)


@contextmanager
def _kept_where_it_fails(name: str) -> Iterator[None]:
    """Keep the module as it was before `forget` where its file, the same, raises in here: what
    registers itself with a library cannot do so twice."""
    try:
        yield
    except Exception:
        if name not in _before:
            raise
        sys.modules[name] = _before[name]


def load_module(path: Path, target: str, key: str) -> ModuleType:
    """The user's own file as a module; what it imports is found in its folder first. Raises
    ConfigError naming `key`, or DataError."""
    content = custom.content(path)
    # A module of its own for each file and content, which may change between two runs.
    identity = os.fsencode(path) + custom.content_hash(path).encode()
    name = f"{PREFIX}{hashlib.sha256(identity).hexdigest()[:16]}"
    _beside.offer(custom.modules(path))  # each time: some is imported when it is called
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec is not None, "config has seen that it is a .py file"
        module = module_from_spec(spec)
        sys.modules[name] = module

        def fails(raised: Raised) -> ConfigError:
            del sys.modules[name]
            return _fault(target, f"{key}: the file does not import: {raised}")

        with _kept_where_it_fails(name), foreign_code(fails):
            exec(compile(content, path, "exec"), module.__dict__)
    return sys.modules[name]


class _Beside(MetaPathFinder):
    """Finds what files of the user's own import from their folders, which are not on `sys.path`:
    there they would stand before libraries that are imported later."""

    def __init__(self) -> None:
        self.offered: dict[str, tuple[Path, str]] = {}

    def offer(self, modules: dict[str, Path]) -> None:
        """Let them be imported by these names; what had one of them, and is another file or
        content, is forgotten by Python."""
        for name, path in modules.items():
            offered = path, custom.content_hash(path) if path.suffix == ".py" else ""
            if self.offered.get(name) != offered:
                self.offered[name] = offered
                for known in (sys.modules, _before):
                    known.pop(name, None)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002  Python's interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name not in self.offered:
            return None
        file, _ = self.offered[name]
        if file.suffix == ".py":
            return spec_from_loader(name, _Source(name, str(file)))
        package = ModuleSpec(name, None, is_package=True)
        package.submodule_search_locations = [str(file)]
        return package


class _Source(SourceFileLoader):
    """Reads a module as its identity is read, which may have come from another machine; no
    bytecode of it is kept beside it."""

    def exec_module(self, module: ModuleType) -> None:
        with _kept_where_it_fails(module.__name__):
            super().exec_module(module)

    def get_data(self, path: str) -> bytes:
        return custom.content(Path(path))

    def path_stats(self, path: str) -> Mapping[str, Any]:  # noqa: ARG002  Python's interface
        raise OSError("no bytecode is kept")


_beside = _Beside()


def _fault(target: str, message: str) -> ConfigError:
    return ConfigError([Fault(where=target, message=message)])
