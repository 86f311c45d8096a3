"""When Python looks for garbage that refers to itself.

What is imported and what is read leaves none, and each look takes time: with torch, 0.15 s for
180,000 objects, a few times during the import and twice at the end of the process.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """To read thousands of runs: looks would take a fifth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


_paused = False


def pause() -> None:
    """Do not look for it until `resume`, while libraries are imported."""
    global _paused
    _paused = True
    gc.disable()


def resume() -> None:
    """Where it is paused: look for it from now on, in what is made from now on. To be called before
    code of the user's runs, or what that leaves is never found."""
    global _paused
    if _paused:
        _paused = False
        gc.freeze()
        gc.enable()


def finish() -> None:
    """At the end of the process: finalize what code of the user's has left, if any has run."""
    if _paused:
        gc.freeze()
    else:
        gc.unfreeze()
