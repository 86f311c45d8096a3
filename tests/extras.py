"""Libraries that `bnbench[integrations]` names: tests with the real ones."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest


def required(name: str) -> ModuleType:
    """The module. Where it is not installed the calling test file is skipped; with
    BNBENCH_INTEGRATIONS=required, as in continuous integration, it fails."""
    if os.environ.get("BNBENCH_INTEGRATIONS") == "required":
        return importlib.import_module(name)
    module: ModuleType = pytest.importorskip(name, exc_type=ImportError)
    return module
