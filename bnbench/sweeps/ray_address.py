"""Which Ray cluster is used: one that answers, or one that is started on this machine."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from bnbench.errors import BnbenchError, ClusterError, UsageError
from bnbench.wording import printable, shortened

PROBE_SECONDS = 4.0
"""How long a cluster may take to be reached, and again to answer; Ray itself would wait for 40 s at
each of 20 attempts."""

MEMBER_SECONDS = "10"
"""How long it may take to say whether this machine is one of its nodes; Ray would ask for 60 s."""

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = b"\x04"
"""How HTTP/2, which Ray's processes speak, begins, and the kind of frame that answers it: RFC 9113,
sections 3.4 and 4.1."""

LOCAL_STORE_BYTES = 100_000_000
"""Of the object store of a Ray that is started here: all that passes is what is shown."""


def connect(address: str | None) -> None:
    """Use the cluster at an address, or at RAY_ADDRESS, or start one on this machine, which ends
    with this process. Raises UsageError, ClusterError."""
    # For a Ray that is started here: nothing is reported to its makers, and it listens on
    # 127.0.0.1 alone, as it does where no cluster can be.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    else:
        os.environ.setdefault("RAY_gcs_server_request_timeout_seconds", MEMBER_SECONDS)
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed", do='pip install "bnbench[ray]"') from None
    if ray.is_initialized():
        return
    # Of a node that dies it would print the log, to standard output; what is lost, we say.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    warnings.filterwarnings("ignore", module=r"ray\.")
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address == "local":
            here = {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
            with _silence():
                ray.init(address, **here, **quiet)
            # Its processes take seconds to end, which another Ctrl-C would cut short.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            return
        if address == "auto":
            address = str(ray._private.services.canonicalize_bootstrap_address(address))
        _require_answer(address)
        with _silence():
            ray._raylet.GcsClient(address)  # fails at once where `init` would try for minutes
        ray.init(address, **quiet)
    except BnbenchError:
        raise
    except Exception as error:  # of all kinds, with what is wrong in the text
        why = shortened(" ".join(str(error).split()), 300)
        do = (
            "the command runs on a node of the cluster, with the Ray and Python of its others; "
            "where it asks for a token, with RAY_AUTH_MODE=token"
        )
        if address == "local":
            do = "where this machine is busy, wait; local workers do without Ray"
        raise ClusterError(f"Ray cannot be used at {address}: {why}", do=do) from error


@contextmanager
def _silence() -> Iterator[None]:
    """What this process writes to stderr inside is lost: Ray's C++ code, which no logging reaches,
    complains while it waits for a process that a busy machine has not started yet."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _require_answer(address: str) -> None:
    """Raises UsageError for an address that is none, ClusterError where no cluster answers:
    `ray.init` would end this process."""
    if "://" in address:
        raise UsageError(
            f"--address {address}: a cluster is joined, not reached through Ray's client",
            do="run the command on a node of the cluster, with HOST:PORT (6379 by default) or auto",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--address {printable(address)}: HOST:PORT is wanted, or auto")
    why = "what is there is not Ray"
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_SECONDS) as connection:
            connection.sendall(HELLO)
            answers = connection.recv(4)[3:] == SETTINGS
    except OSError as error:
        answers, why = False, str(error)
    if not answers:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {why}",
            do="look at `ray status` there, or leave out --address and RAY_ADDRESS for a Ray of "
            "your own",
        )
