"""For all tests: one thread, since tensors are small and processes share the cores."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

# A shell that starts us in the background lets us ignore Ctrl-C, and so would what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
