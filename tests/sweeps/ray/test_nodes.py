"""A cluster that does not answer, played by a stand-in for Ray."""

from __future__ import annotations

import sys
from contextlib import closing
from functools import partial
from threading import Event, current_thread, main_thread
from types import SimpleNamespace
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.errors import ClusterError
from bnbench.sweeps.jobs import SweepOptions
from bnbench.sweeps.ray import nodes
from bnbench.sweeps.ray.executor import Ray, _cause
from tests.processes import LIMIT, wait_until
from tests.runs import small_config

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

    ray = SimpleNamespace(nodes=look, available_resources=lambda: {"CPU": 1.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.01)
    said: list[str] = []
    with closing(nodes.Nodes(said.append)) as found:
        found.waited(nodes.LOST_SECONDS - 1)
        before = len(looks)
        wait_until(lambda: len(looks) > before + 1)  # the first may have been under way
        found.waited(2)
        assert found.alive() == [THERE]
        answers, before = False, len(looks)
        wait_until(lambda: len(looks) > before + 1)
        said.clear()
        found.waited(nodes.SILENCE_SECONDS + 1)
        with pytest.raises(ClusterError, match=r"^the Ray cluster does not answer") as lost:
            found.waited(nodes.LOST_SECONDS)
        assert str(lost.value.__cause__) == "GCS"
        assert len(said) == 1
        assert "does not answer; its head is waited for" in said[0]
    assert (found.alive(), found.free) == ([THERE], {"CPU": 1.0})


@pytest.mark.parametrize("silent", ["nodes", "available_resources"])
def test_nor_does_a_head_that_is_silent_from_the_start_hold_anybody_up(
    monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    """Ray is not asked but in a thread, where it waits."""
    asked, ended = [], Event()

    def ask(name: str) -> Any:
        asked.append(current_thread() is main_thread())
        return ended.wait(LIMIT) if name == silent else []

    ray = {name: partial(ask, name) for name in ("nodes", "available_resources")}
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(**ray))
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(nodes, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(nodes, "LOST_SECONDS", 0.2)
    said: list[str] = []
    try:
        with pytest.raises(ClusterError, match="does not answer any more"):
            nodes.Nodes(said.append)
    finally:
        ended.set()
    assert asked
    assert not any(asked)
    assert len(said) == 1


def test_what_a_call_gives_or_raises_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it takes longer than a look, and where it is late itself."""
    ray = SimpleNamespace(nodes=lambda: [THERE], available_resources=dict)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.01)
    with closing(nodes.Nodes(print)) as found:
        assert found.ask(lambda: Event().wait(0.05) or "given") == "given"
        with pytest.raises(TimeoutError, match="late"):
            found.ask(partial(fails, TimeoutError("late")))


def fails(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("workers", "device", "there", "gpu"),
    [(None, "auto", 0, None), (None, "auto", 2, 1.0), (4, "auto", 2, 0.5), (3, "cuda", 1, 0.3333),
     (4, "cpu", 2, None), (None, "cuda", 0, 1.0)],
)  # fmt: skip
def test_an_actor_takes_the_cores_the_memory_and_its_part_of_a_gpu(
    workers: int | None, device: str, there: int, gpu: float | None
) -> None:
    """Of the run that needs most; a GPU that only comes with a node that joins is waited for."""
    runs = [small_config(compute=schema.ComputeConfig(threads=each)) for each in (1, 3)]
    found = SimpleNamespace(alive=lambda: [{"Resources": {"GPU": float(there)}}])
    options = SweepOptions(device=device)
    asking = Ray.__new__(Ray)  # which is in no cluster
    vars(asking).update(_runs=runs, _nodes=found, _options=options, _size=workers)
    needs = asking._needs
    assert (needs["CPU"], needs.get("GPU")) == (3.0, gpu)
    assert needs["memory"] > 6e8, "of the process"


def test_where_the_node_of_the_driver_is_lost_no_run_goes_on_elsewhere() -> None:
    """As Ray 2.60 says it."""
    said = "The actor is dead because its owner has died. Owner Id: 02. Owner's node has crashed."
    with pytest.raises(ClusterError, match="has lost the node of this machine") as error:
        _cause(RuntimeError(said))
    assert "the same command goes on" in str(error.value.do)
