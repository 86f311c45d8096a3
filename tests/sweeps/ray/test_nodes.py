"""A cluster that does not answer, played by a stand-in for Ray."""

from __future__ import annotations

import sys
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from bnbench.errors import ClusterError
from bnbench.sweeps.ray import nodes
from bnbench.sweeps.ray.executor import _cause
from tests.sweeps.test_workers import wait_until

THERE, GONE = {"Alive": True, "NodeID": "1"}, {"Alive": False, "NodeID": "2"}


def test_a_head_is_waited_for_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited while it answers does not count."""
    looks: list[bool] = []
    answers = True

    def look() -> list[dict[str, Any]]:
        looks.append(answers)
        if not answers:
            raise RuntimeError("GCS")
        return [THERE, GONE][: len(looks)]

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=look))
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.01)
    said: list[str] = []
    with closing(nodes.Nodes(said.append)) as found:
        found.waited(nodes.LOST_SECONDS - 1)
        before = len(looks)
        wait_until(lambda: len(looks) > before + 1, seconds=60)  # the first may have been under way
        found.waited(2)
        assert found.alive() == [THERE]
        answers, before = False, len(looks)
        wait_until(lambda: len(looks) > before + 1, seconds=60)
        said.clear()
        found.waited(nodes.SILENCE_SECONDS + 1)
        with pytest.raises(ClusterError, match=r"^the Ray cluster does not answer any more"):
            found.waited(nodes.LOST_SECONDS)
        assert len(said) == 1
        assert "does not answer; its head is waited for" in said[0]
    assert found.alive() == [THERE]


def test_where_the_node_of_the_driver_is_lost_no_run_goes_on_elsewhere() -> None:
    """As Ray 2.60 says it."""
    said = "The actor is dead because its owner has died. Owner Id: 02. Owner's node has crashed."
    with pytest.raises(ClusterError, match="has lost the node of this machine") as error:
        _cause(RuntimeError(said))
    assert "the same command goes on" in str(error.value.do)
