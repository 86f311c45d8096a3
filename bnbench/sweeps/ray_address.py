"""Which Ray cluster is used: one that answers, or one that is started on this machine."""

from __future__ import annotations

import os
import socket

from bnbench.errors import ClusterError, UsageError
from bnbench.wording import shortened

PROBE_SECONDS = 10.0
"""How long a cluster may take to say that it is there; Ray itself would wait for 80 s."""

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
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed", do='pip install "bnbench[ray]"') from None
    if ray.is_initialized():
        return
    # Of a node that dies it would print the log, to standard output; what is lost, we say.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    here = {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
    if address not in ("local", "auto"):
        _require_answer(address)
    try:
        ray.init(address, **(here if address == "local" else {}), **quiet)
    except Exception as error:  # of all kinds, with what is wrong in the text
        why = shortened(" ".join(str(error).split()), 300)
        raise ClusterError(
            f"Ray cannot be used at {address}: {why}",
            do="the cluster needs the Ray and Python of this environment",
        ) from error


def _require_answer(address: str) -> None:
    """Raises UsageError for an address that is none, ClusterError where no cluster answers:
    `ray.init` would end this process."""
    if "://" in address:
        raise UsageError(
            f"--address {address}: a cluster is joined, not reached through Ray's client",
            do="run the command on a node of the cluster, with HOST:PORT (6379 by default) or auto",
        )
    host, _, port = address.rpartition(":")
    why = "what is there is not Ray"
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_SECONDS) as connection:
            connection.sendall(HELLO)
            answers = connection.recv(4)[3:] == SETTINGS
    except (OSError, ValueError) as error:
        answers, why = False, str(error)
    if not answers:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {why}",
            do="look at `ray status` there, or leave out --address and RAY_ADDRESS for a Ray of "
            "your own",
        )
