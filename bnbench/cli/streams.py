"""Standard input, output and error as they may be: closed, full, not UTF-8, without a reader.

None of it stops the work that a command does.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import select
import sys
from errno import EPIPE
from typing import Any, BinaryIO, TextIO


class _Output(io.FileIO):
    """A descriptor that takes everything; after an error of writing, what is written is dropped."""

    failure: OSError | None = None

    def close(self) -> None:
        """Stay open, unless the descriptor is ours: the user's code may close what we print to."""
        if self.closefd:
            super().close()

    def write(self, content: Any) -> int:
        """Write all of it; no buffer, whose lock a signal handler that prints would meet."""
        left = memoryview(content)
        while left and self.failure is None:
            try:
                written = super().write(left)
                if written is None:  # a pipe that does not block and has no room
                    select.select((), (self,), ())
                left = left[written or 0 :]
            except OSError as error:
                self.failure = error
        return len(content)


class _Stream(io.TextIOWrapper):
    """Stays open as well."""

    def close(self) -> None:
        self.flush()

    def detach(self) -> BinaryIO:
        raise io.UnsupportedOperation("detach")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Characters that the encoding lacks as JSON writes them, so that JSON stays JSON."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def prepare() -> None:
    """Have every descriptor open, and print to streams that never fail."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get this number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error("bnbench", _escaped)
    if sys.platform != "win32":  # a console there is no file
        sys.stdout = _text(1, sys.stdout, line_buffering=False)
        sys.stderr = _text(2, sys.stderr, line_buffering=True)


def _text(number: int, stream: TextIO | None, *, line_buffering: bool) -> TextIO:
    return _Stream(
        _Output(number, "w", closefd=False),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="bnbench",
        line_buffering=line_buffering or os.isatty(number),
    )


def finish() -> int:
    """Print what is left; the exit code: 4 where standard output did not take everything, unless
    its reader has gone, which is no error."""
    sys.stdout.flush()
    output = getattr(sys.stdout, "buffer", None)
    failure = output.failure if isinstance(output, _Output) else None
    if failure is None or failure.errno == EPIPE:
        return 0
    print(
        f"standard output: {failure.strerror}: what was printed is not complete\n"
        "  print it to another place; what is stored is whole",
        file=sys.stderr,
    )
    return 4
