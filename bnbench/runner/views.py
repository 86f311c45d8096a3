"""What shows a run while it trains, as `log` of its configuration names it: rewritten, or gone on
with, from what the folder of the run holds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stderr, redirect_stdout
from functools import partial

from bnbench.config import schema
from bnbench.errors import RunError
from bnbench.guard import ForeignCode
from bnbench.runner.settings import Settings
from bnbench.sinks import OptionalSink, Sink
from bnbench.sinks.loggers import LoggerSink, Name, labels_of, open_logger
from bnbench.sinks.metrics import to_moments
from bnbench.sinks.scalars import Scalars
from bnbench.store import RunFolder

LOGGED_AS = "logged_as"
"""The key of a manifest with the identifier of the run in loggers."""


def of_log(
    config: schema.RunConfig,
    folder: RunFolder,
    settings: Settings,
    *,
    resumed: bool,
    before_tensorboard: Callable[[], None] = lambda: None,
) -> Iterator[Sink]:
    """A view for each name in `log`, which has what the folder holds. `resumed`: an earlier attempt
    may have logged the run."""
    for name in config.log:
        if name == "tensorboard":
            opened = partial(_tensorboard, folder, before_tensorboard)
            yield OptionalSink(opened, settings.announce)
        else:
            opened = partial(_logger, name, folder, resumed=resumed, lasting=settings.lasting)
            entered = partial(_library, ForeignCode(), name, settings.announce)
            yield OptionalSink(opened, settings.announce, name, entered)


def _tensorboard(folder: RunFolder, before: Callable[[], None]) -> Sink:
    from bnbench.board.views import open_view  # slow to import

    before()
    return open_view(folder)


def _logger(name: Name, folder: RunFolder, *, resumed: bool, lasting: bool) -> Sink:
    manifest = folder.manifest()
    assert manifest is not None
    labels = labels_of(manifest, manifest[LOGGED_AS], resumed=resumed)
    logger = open_logger(name, labels, folder.path.parent if lasting else None)
    with ExitStack() as stack:
        sink = stack.enter_context(closing(LoggerSink(logger, Scalars(manifest))))
        for moment in to_moments(folder.records()):
            sink.take(moment)
        stack.pop_all()
    return sink


@contextmanager
def _library(library: ForeignCode, name: str, announce: Callable[[str], None]) -> Iterator[None]:
    """A library's code: it prints nothing, and the process is afterwards as it was. What it warns
    its users of is said."""
    silent = io.StringIO()
    with (
        library.entered(lambda raised: RunError(f"{raised.kind}{raised.message}")),
        redirect_stdout(silent),
        redirect_stderr(silent),
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for each in told:
        announce(f"warning: {name}: {' '.join(str(each.message).split())}")
