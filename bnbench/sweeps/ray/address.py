"""Which Ray cluster is used: one that can be joined, or one that is started on this machine."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

from bnbench import guard
from bnbench.errors import ClusterError, UsageError
from bnbench.wording import printable, shortened

Found = TypeVar("Found")

REACH_SECONDS = 4.0
"""How long a connection to a cluster's address may take."""

JOIN_SECONDS = 8.0
"""How long joining a cluster may take, Ray being imported; 2 s on a machine with little to do."""

JOIN = """
import sys, ray
print(flush=True)
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level=50)
except Exception as error:
    print(error)
    sys.exit(1)
"""

LEAVE_SECONDS = 15.0
"""How long leaving a cluster may take, half a second on a machine with little to do: where its head
does not respond Ray waits, for ever if need be."""

STUCK = "the Ray cluster does not let this process leave; what has come back is saved"

NOT_JOINED = "it does not let anybody join within {:.0f} s"

PATIENCE = {
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "1",
    "RAY_gcs_server_request_timeout_seconds": "8",
    "RAY_py_gcs_connect_timeout_s": "4",
}
"""Ray's settings with which it gives a cluster up that does not answer after 7 s; it would try for
40 s, 20 times."""

LOCAL_STORE_BYTES = 100_000_000
"""Of the object store of a Ray that is started here: all that passes is what is shown."""


def connect(address: str | None) -> None:
    """Use the cluster at an address, or at RAY_ADDRESS, or start one on this machine, which ends
    with this process. Raises UsageError, ClusterError."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here = address == "local"
    # Of a Ray that is started here nothing is reported to its makers, and it listens on 127.0.0.1
    # alone, as it does where no cluster can be.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    warns_without = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    for name, value in ((settings if here else PATIENCE) | warns_without).items():
        os.environ.setdefault(name, value)
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
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    do = "where this machine is busy, wait; local workers do without Ray"
    if here:
        options |= {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
    else:
        do = (
            "the command runs on a node of the cluster, with the Ray and Python of its others; "
            "look at `ray status` there; where it asks for a token, set RAY_AUTH_MODE=token; "
            "without --address and RAY_ADDRESS a Ray of your own is started"
        )
    try:
        if address == "auto":
            address = str(ray._private.services.canonicalize_bootstrap_address(address))
        with _silence():
            if here:
                ray.init(address, **options)
            else:
                require_join(address)
                _join(address, options)
    except UsageError:
        raise
    except Exception as error:  # of all kinds, with what is wrong in the text
        why = shortened(" ".join(str(error).split()), 300)
        raise ClusterError(f"Ray cannot be used at {address}: {why}", do=do) from error
    if here:
        # Its processes take seconds to end, which another Ctrl-C would cut short.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def require_join(address: str) -> None:
    """Join a cluster in another process: where one of Ray's own does not respond, `ray.init` holds
    all of its process up, and ends it at last.

    Raises UsageError for an address that is none, OSError for a cluster that cannot be joined.
    """
    if "://" in address:
        raise UsageError(
            f"--address {address}: a cluster is joined, not reached through Ray's client",
            do="run the command on a node of the cluster, with HOST:PORT (6379 by default) or auto",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--address {printable(address)}: HOST:PORT is wanted, or auto")
    socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    command = [sys.executable, "-P", "-c", JOIN, address]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tried:
        assert tried.stdout is not None
        tried.stdout.readline()  # it has imported Ray, which takes a busy machine long
        try:
            tried.wait(timeout=JOIN_SECONDS)
            why = tried.stdout.read()
        except subprocess.TimeoutExpired:
            tried.kill()
            why = NOT_JOINED.format(JOIN_SECONDS)
    if tried.returncode:
        raise ConnectionError(why or f"who joins it ends with code {tried.returncode}")


def _join(address: str, options: dict[str, Any]) -> None:
    """`ray.init` for a cluster that another process could join, in a thread: where its head dies in
    the meantime, it waits for minutes. Raises what that raises, and ConnectionError.

    When this process ends, it leaves the cluster, or just ends if it cannot."""
    import ray

    try:
        in_thread(lambda: ray.init(address, **options)).result(JOIN_SECONDS)
    except TimeoutError:
        raise ConnectionError(NOT_JOINED.format(JOIN_SECONDS)) from None
    leaving, left = Event(), Event()

    def leave() -> None:
        leaving.set()
        ray.shutdown()
        left.set()

    def end() -> None:
        leaving.wait()
        if left.wait(LEAVE_SECONDS):
            return
        code = guard.exit_code
        if code is None:  # a script of the user's own, whose errors Python has printed
            code = int(hasattr(sys, "last_type"))
        try:
            print(STUCK, file=sys.stderr)
            sys.stdout.flush()
        finally:
            os._exit(code)

    Thread(target=end, daemon=True).start()
    atexit.register(leave)


def in_thread(call: Callable[[], Found]) -> Future[Found]:
    """What a call of Ray will give that may never return, and then holds up neither Ctrl-C nor the
    end of this process."""
    found = Future[Found]()

    def run() -> None:
        try:
            found.set_result(call())
        except BaseException as error:
            found.set_exception(error)

    Thread(target=run, daemon=True).start()
    return found


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
