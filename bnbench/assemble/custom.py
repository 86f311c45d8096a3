"""Classes in files of the user's own: the only code here that bnbench does not know."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

from torch import nn

from bnbench.config import custom, feasible, schema
from bnbench.errors import BnbenchError, ConfigError, Fault
from bnbench.guard import Raised, foreign_code


def guarded(
    config: schema.RunConfig, raises: Callable[[Raised], BnbenchError]
) -> AbstractContextManager[None]:
    """What the network of a run is called in: code of the user's own is guarded, as `foreign_code`
    says; bnbench's own is not, and costs nothing more. Where no line of it is known, its file is
    named."""

    def placed(raised: Raised) -> BnbenchError:
        files = dict.fromkeys(path.name for path, _ in custom.targets(config).values())
        raised.place = raised.place or (f"{' or '.join(files)}: " if files else "")
        return raises(raised)

    return foreign_code(placed) if feasible.opaque(config) else nullcontext()


def named(config: schema.RunConfig) -> str:
    """The classes of the user's own in a run, e.g. `my.py:Layer (norm.target)`; "" for none."""
    found = custom.targets(config).items()
    return " and ".join(f"{path.name}:{name} ({key})" for key, (path, name) in found)


def load_class(target: str, key: str) -> type[nn.Module]:
    """The class that a `target` names, from its file. Raises ConfigError naming `key`, or
    DataError."""
    path, class_name = custom.custom_target(target)
    content = custom.content(path)
    # A module of its own for each file and content, which may change between two runs.
    name = f"bnbench_custom_{hashlib.sha256(os.fsencode(path) + content).hexdigest()[:16]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, "config has seen that it is a .py file"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module

        def fails(raised: Raised) -> ConfigError:
            del sys.modules[name]
            return _fault(target, f"{key}: the file does not import: {raised}")

        with foreign_code(fails):
            exec(compile(content, path, "exec"), module.__dict__)
    return _module_class(module, target, class_name, key)


def _module_class(module: ModuleType, target: str, class_name: str, key: str) -> type[nn.Module]:
    found = getattr(module, class_name, None)
    if found is None:
        raise _fault(target, f"{key}: the file defines no {class_name}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise _fault(target, f"{key}: {class_name} is not a torch.nn.Module")
    return found


def _fault(target: str, message: str) -> ConfigError:
    return ConfigError([Fault(where=target, message=message)])
