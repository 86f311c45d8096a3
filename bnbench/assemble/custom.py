"""Classes in files of the user's own: the only code here that bnbench does not know."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from types import ModuleType

from torch import nn

from bnbench.config import custom
from bnbench.errors import ConfigError, Fault


def load_class(target: str, key: str) -> type[nn.Module]:
    """The class that a `target` names, from its file. Raises ConfigError naming `key`, or
    DataError."""
    path, class_name = custom.custom_target(target)
    content = custom.content(path)
    # A module of its own for each content: the file may change between two runs of one process.
    name = f"bnbench_custom_{hashlib.sha256(content).hexdigest()[:16]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None, "config has seen that it is a .py file"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            exec(compile(content, path, "exec"), module.__dict__)
        except Exception as error:
            del sys.modules[name]
            reason = f"{type(error).__name__}: {error}"
            raise _fault(target, f"{key}: the file does not import: {reason}") from error
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
