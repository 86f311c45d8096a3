"""The items of a dataset in order, by several processes where that takes long."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Generator
from typing import Any

from bnbench.machine import usable_cores

SERIAL_SECONDS = 3.0
"""Decoding that takes no longer is done here: workers take about a second to start and to end."""


def in_order(get: Any, count: int) -> Generator[Any, None, None]:
    """Items in order: by this process, until the rest turns out to take long; then by workers, if
    it can have others."""
    cores, fork = usable_cores(), "fork" in multiprocessing.get_all_start_methods()
    alone = cores == 1 or not fork or multiprocessing.current_process().daemon
    done, begun = 0, time.perf_counter()
    while done < count:
        spent = time.perf_counter() - begun
        if not alone and done and spent / done * (count - done) >= SERIAL_SECONDS:
            break
        yield get[done]
        done += 1
    if done == count:
        return
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads: none of ours holds a lock
        loader: Any = iter(
            DataLoader(
                get,
                batch_size=16,
                sampler=range(done, count),
                num_workers=cores,
                multiprocessing_context="fork",  # the user's classes have no name to import
                collate_fn=list,
            )
        )
        try:
            for batch in loader:
                yield from batch
        finally:
            # Collected later, with the error that holds it, it would wait 5 s for each worker.
            loader._shutdown_workers()
