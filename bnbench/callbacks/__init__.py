"""`bnbench.watch` in the training loops of Lightning, Hugging Face's Trainer and Accelerate.

Each has a file, which imports its library; `bnbench.callbacks.LightningWatch` is one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bnbench.errors import UsageError

if TYPE_CHECKING:
    from bnbench.callbacks.accelerate import AccelerateWatch as AccelerateWatch
    from bnbench.callbacks.lightning import LightningWatch as LightningWatch
    from bnbench.callbacks.transformers import TransformersWatch as TransformersWatch

LIBRARIES = {
    "LightningWatch": "lightning",
    "TransformersWatch": "transformers",
    "AccelerateWatch": "accelerate",
}


def __getattr__(name: str) -> object:
    """The class, imported on first use. Raises UsageError where its library is not installed."""
    if name not in LIBRARIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    library = LIBRARIES[name]
    try:
        return getattr(import_module(f"bnbench.callbacks.{library}"), name)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        extra = "lightning" if library == "lightning" else "transformers"
        do = f"pip install {library}, or bnbench[{extra}]"
        raise UsageError(f"{library} is not installed", do=do) from None
