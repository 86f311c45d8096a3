"""A Ray cluster of several nodes on this machine, and images for it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from bnbench.config import schema
from tests.extras import required
from tests.processes import LIMIT

for name, value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it listens on 127.0.0.1 alone
}.items():
    os.environ[name] = value
ray = required("ray")

from bnbench.sweeps.ray import address as joining  # noqa: E402  it needs Ray

STORE_BYTES = 80 * 2**20

Made = TypeVar("Made")


def at_last(make: Callable[[], Made]) -> Made:
    """A cluster or a node of one, made at the third try at the latest: Ray gives its processes half
    a minute, too short on a busy machine. What a try has left is killed before the next."""
    from ray._private import node

    made: list[node.Node] = []

    class Node(node.Node):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            made.append(self)
            super().__init__(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "Node", Node)
        for _ in range(2):
            with suppress(Exception):
                return make()
            for each in made:
                each.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        return make()


class Cluster:
    """A cluster whose head trains nothing, and this process in it."""

    def __init__(self, folder: Path) -> None:
        from ray import cluster_utils

        self._folder = folder
        head = {
            "num_cpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            # Of five looks, each of which may take 10 s: who is dead answers none at once.
            "_system_config": {"health_check_period_ms": 500},
        }
        self._cluster = at_last(
            lambda: cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        )
        self._nodes: dict[str, Any] = {}
        self.address = self._cluster.address
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joining, "JOIN_SECONDS", LIMIT)  # where other tests are at work, too
            joining.connect(self.address)
        for name in joining.PATIENCE:  # which nodes that this process starts need not have
            os.environ.pop(name, None)

    def add(self, **more: Any) -> str:
        """A node with one core and a working directory of its own; its id."""
        before, own = Path.cwd(), self._folder / f"node-{time.monotonic_ns()}"
        own.mkdir()
        os.chdir(own)
        try:
            settings = {"num_cpus": 1, "object_store_memory": STORE_BYTES} | more
            node = at_last(lambda: self._cluster.add_node(**settings))
        finally:
            os.chdir(before)
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def kill(self, node: str) -> None:
        """As if it lost its power."""
        self._cluster.remove_node(self._nodes.pop(node), allow_graceful=False)

    @contextmanager
    def frozen(self, name: str) -> Iterator[int]:
        """A process of the node that others join does not respond meanwhile; its id."""
        (there,) = self._cluster.head_node.all_processes[name]
        os.kill(there.process.pid, signal.SIGSTOP)
        try:
            yield there.process.pid
        finally:
            os.kill(there.process.pid, signal.SIGCONT)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


def can_hide() -> bool:
    """Whether a process may see other files than we at a path."""
    try:
        return (
            subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=60).returncode
            == 0
        )
    except OSError:
        return False


def images_in(folder: Path) -> schema.ImageFolderData:
    """Four classes of a few small images."""
    for part, count in (("train", 24), ("test", 8)):
        for label in range(4):
            where = folder / part / f"class-{label}"
            where.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = np.random.default_rng((label, number)).integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels // (label + 1)).save(where / f"{number:02}.png")
    return schema.ImageFolderData(
        dataset="image-folder",
        root=str(folder),
        image_size=8,
        channels=1,
        validation_size=32,
        batch_size=8,
        eval_batch_size=16,
    )
