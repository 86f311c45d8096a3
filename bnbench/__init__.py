"""bnbench compares normalization setups in convolutional networks.

`sweep` trains a study, `open` reads one, `diagnose` says why a model is bad in eval mode, `watch`
what the normalization layers of a training loop do, `swap` exchanges them. `bnbench explain python`
lists their arguments; bnbench/README.md describes the packages, and how data flows.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnbench.assemble.swapping import swap as swap
    from bnbench.diagnosis.diagnose import diagnose as diagnose
    from bnbench.notebook import Study as Study
    from bnbench.notebook import open as open
    from bnbench.notebook import sweep as sweep
    from bnbench.watching.watch import watch as watch

__version__ = "0.1.0"

_PLACES = {
    "diagnose": "diagnosis",
    "watch": "watching",
    "swap": "assemble",
    "Study": "notebook",
    "open": "notebook",
    "sweep": "notebook",
}

__all__ = list(_PLACES)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]


def __getattr__(name: str) -> object:
    """The functions for Python, imported on first use, so that `import bnbench` needs no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"bnbench.{_PLACES[name]}"), name)
