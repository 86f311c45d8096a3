"""A Ray cluster of three nodes on this machine: the same folders, the same bits, whatever dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from bnbench.config import loading, plans, schema
from bnbench.errors import ClusterError
from bnbench.runner.settings import Stop
from bnbench.sinks.terminal import Screen
from bnbench.store import ExperimentFolder
from bnbench.sweeps.jobs import SweepOptions, Train
from bnbench.sweeps.shipping import Shipping
from tests.executors import sweep
from tests.extras import required
from tests.processes import LIMIT, completed, started, wait_until
from tests.runs import committed_step, experiment_in, small_config
from tests.sweeps.test_shipping import LAYER, locally, long_config, stored

ray = required("ray")

from bnbench.sweeps.ray import nodes as watching  # noqa: E402  it needs Ray, as do others
from bnbench.sweeps.ray.address import require_join  # noqa: E402
from bnbench.sweeps.ray.executor import Ray  # noqa: E402
from tests.sweeps.ray.cluster import STORE_BYTES, Cluster, can_hide, images_in  # noqa: E402

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with closing(Cluster(tmp_path_factory.mktemp("ray"))) as there:
        for _ in range(3):
            there.add()
        yield there


SEES = Ray.sees


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints come back as soon as they are there; nobody sees the disk of another."""
    monkeypatch.setattr("bnbench.sweeps.shipping.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Ray, "sees", lambda *_: False)


class Watched(Shipping):
    """Calls `each_turn` when answers are looked for."""

    def __init__(self, *arguments: Any, each_turn: Callable[[Any], None]) -> None:
        super().__init__(*arguments)
        self._each_turn = each_turn

    def answers(self, seconds: float) -> Any:
        self._each_turn(self._remote)
        return super().answers(seconds)


STUDY = """
data: {dataset: image-folder, root: images, image_size: 8, channels: 1,
       validation_size: 32, batch_size: 8, eval_batch_size: 16}
model: {widths: [4, 8], blocks: 1}
train: {epochs: 4, evaluations: 2, checkpoint_every: 4}
setups: {bn: {}, own: {norm: {kind: custom, target: layer.py:Scaled, options: {scale: 0.5}}}}
axes: {optim.lr: [0.01, 0.1]}
seeds: 3
"""


PATIENT = f"""
from bnbench.__main__ import main
from bnbench.sweeps.ray import address

address.JOIN_SECONDS = {LIMIT}
main()
"""


@pytest.mark.skipif(not can_hide(), reason="needs a mount namespace")
def test_twelve_runs_whose_driver_is_killed_and_begins_again(
    nodes: Cluster, tmp_path: Path
) -> None:
    """The driver alone sees its folder: experiment, layer, images and runs."""
    kept, seen = tmp_path / "kept", tmp_path / "seen"
    seen.mkdir()
    images_in(kept / "images")
    (kept / "layer.py").write_text(LAYER)
    (kept / "study.yaml").write_text(STUDY)
    inside = f"mount --bind {kept} {seen} && cd {seen} && exec {sys.executable} -c '{PATIENT}'"
    sweep = f"sweep study.yaml --quiet --on ray --address {nodes.address}"
    command = ["unshare", "-m", "sh", "-c", f"{inside} {sweep}"]
    experiment = ExperimentFolder(kept / "runs" / "study")

    def finished() -> dict[str, int]:
        paths = experiment.path.glob("*/result.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in paths}

    with started(*command) as driver:
        wait_until(finished, process=driver)
    before = finished()
    assert before
    assert not list(seen.iterdir())
    completed(*command)
    assert before.items() <= finished().items(), "what was finished is only read"
    runs = list(plans.expand(loading.load_experiment(kept / "study.yaml")).runs)
    assert len(runs) == 12
    assert stored(experiment) == stored(locally(tmp_path / "here", runs))


def test_on_a_shared_disk_nothing_is_copied(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ray, "sees", SEES)
    monkeypatch.setattr("bnbench.sweeps.ray.executor.SEEN_SECONDS", LIMIT)
    runs = [small_config(seed=seed) for seed in range(2)]
    experiment = experiment_in(tmp_path)
    shipments: list[Any] = []

    def watch(cluster: Any) -> None:
        shipments.extend(each.shipment for each in trainers(cluster))

    outcome, _ = swept(nodes, runs, experiment, watch)
    assert (outcome.trained, outcome.failures) == (2, [])
    assert shipments
    assert all(each.place and not each.files for each in shipments)
    assert not list(experiment.path.glob("*.tmp"))
    assert stored(experiment) == stored(locally(tmp_path / "here", runs))


def swept(
    nodes: Cluster,
    runs: list[schema.RunConfig],
    experiment: ExperimentFolder,
    each_turn: Callable[[Any], None] = lambda _: None,
    **options: Any,
) -> tuple[Any, list[str]]:
    """Sweep on the cluster; the outcome, and what was said."""
    said: list[str] = []
    experiment.path.mkdir(parents=True)
    with (experiment.path.parent / "said").open("w+") as file:
        console = Console(file=file, width=300)
        chosen = SweepOptions(address=nodes.address, on="ray", **options)
        cluster = Ray(chosen, runs, experiment, said.append)
        with closing(Watched(cluster, experiment, cluster.sees, each_turn=each_turn)) as executor:
            screen = Screen(console, runs=len(runs))
            outcome = sweep(runs, experiment, executor, screen, Stop(), on="ray", **options)
        file.seek(0)
        return outcome, said + file.read().splitlines()


def trainers(cluster: Any) -> list[Any]:
    """The workers that train."""
    return [
        each for each in cluster._workers if each.shipment and isinstance(each.shipment.job, Train)
    ]


def test_a_worker_and_a_node_are_killed_and_a_node_joins(nodes: Cluster, tmp_path: Path) -> None:
    """Each while it trains a run of which the driver has a checkpoint, from which it goes on."""
    (slow := tmp_path / "slow").touch()
    runs = [long_config(slow).model_copy(update={"seed": seed}) for seed in range(5)]
    experiment = experiment_in(tmp_path)
    lost: dict[str, tuple[Any, int]] = {}  # shipments, and the step that the driver had then
    again: dict[str, int] = {}  # the step that they were sent elsewhere with

    def disturb(cluster: Any) -> None:
        training = {each.shipment.run: each for each in trainers(cluster)}
        for name in lost.keys() & training.keys() - again.keys():
            if training[name].shipment is not lost[name][0]:
                again[name] = committed_step(experiment.run(name))
                assert training[name].shipment.files["checkpoint.pt"]
        saved = {name: committed_step(experiment.run(name)) for name in training.keys() - lost}
        name, step = max(saved.items(), key=lambda each: each[1], default=("", 0))
        if not step or len(lost) == 2 or (not lost and len(training) < 3):
            return
        actor = training[name].actor
        if not lost:
            process = actor.__ray_call__.remote(lambda _: os.getpid())
            os.kill(ray.get(process, timeout=LIMIT), signal.SIGKILL)
        else:
            nodes.kill(ray.get(actor.about.remote(None), timeout=LIMIT).node)
            wait_until(lambda: cluster.size == 2)
            nodes.add()
            wait_until(lambda: cluster.size == 3)
            slow.unlink()
        lost[name] = training[name].shipment, committed_step(experiment.run(name))

    outcome, said = swept(nodes, runs, experiment, disturb)
    assert (outcome.trained, outcome.failures) == (5, [])
    assert len(lost) == 2
    assert lost.keys() == again.keys()
    assert all(0 < step <= again[name] < 200 for name, (_, step) in lost.items())
    attempts = {run.name: (run.manifest() or {})["attempts"] for run in experiment.runs()}
    assert {name for name, number in attempts.items() if number > 1} == lost.keys()
    assert sum("the run goes on in another" in line for line in said) == 2
    assert stored(experiment) == stored(locally(tmp_path / "here", runs))


JOINS = """
import os, signal, sys
from bnbench.errors import ClusterError
from bnbench.sweeps.ray import address

def freeze(_=None):
    os.kill(int(sys.argv[2]), signal.SIGSTOP)

address.LEAVE_SECONDS = 1.0
if sys.argv[3] == "joining":
    address.JOIN_SECONDS, address.require_join = 1.0, freeze
else:
    address.JOIN_SECONDS, address.require_join = 60.0, lambda _: None
try:
    address.connect(sys.argv[1])
except ClusterError as error:
    sys.exit(error.what)
print("whole")
freeze()
"""


def test_a_cluster_that_does_not_respond_holds_nobody_up(
    nodes: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections. Before, while and after somebody joins: Ray's own functions would
    wait, or end this process after a minute."""
    monkeypatch.setattr("bnbench.sweeps.ray.address.JOIN_SECONDS", 1.0)
    with nodes.frozen("raylet"), pytest.raises(OSError, match="within 1 s"):
        require_join(nodes.address)
    for when, code, said, printed in (
        ("joining", 1, "does not let anybody join within 1 s", ""),
        ("", 0, "does not let this process leave", "whole\n"),
    ):
        with nodes.frozen("gcs_server") as head:
            os.kill(head, signal.SIGCONT)
            command = [sys.executable, "-c", JOINS, nodes.address, str(head), when]
            joined = completed(*command, code=code)
        assert said in joined.stderr, joined.stderr
        assert joined.stdout == printed


def test_a_cluster_that_stops_responding_ends_the_sweep(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.1)
    (slow := tmp_path / "slow").touch()
    with ExitStack() as frozen:
        heads: list[int] = []

        def freeze(cluster: Any) -> None:
            if trainers(cluster) and not heads:
                heads.append(frozen.enter_context(nodes.frozen("gcs_server")))
                monkeypatch.setattr(watching, "LOST_SECONDS", 2.0)
                cluster._spawn()  # Ray has it wait for the head

        with pytest.raises(ClusterError, match="does not answer any more"):
            swept(nodes, [long_config(slow)], experiment_in(tmp_path), freeze)
    assert heads


def test_where_no_node_is_like_this_machine_nothing_is_trained(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnbench.runner.provenance.environment", lambda: {"torch": "1.0"})
    with pytest.raises(
        ClusterError, match=r"^no node can be used: .* has torch .* instead of 1\.0"
    ):
        swept(nodes, [small_config()], experiment_in(tmp_path))


def test_images_reach_each_node_once_although_the_object_store_is_full(
    nodes: Cluster, tmp_path: Path
) -> None:
    """Ray moves objects to its disk. The folder of images is gone once it has been read."""
    kept = [ray.put(bytes(10**7)) for _ in range(12)]
    images = tmp_path / "images"
    runs = [small_config(seed=seed, data=images_in(images)) for seed in range(2)]
    here = locally(tmp_path / "here", runs)
    experiment = experiment_in(tmp_path)

    def remove(cluster: Any) -> None:
        if cluster._images and images.exists():
            images.rename(tmp_path / "elsewhere")

    outcome, _ = swept(nodes, runs, experiment, remove)
    assert (outcome.trained, outcome.failures) == (2, [])
    assert not images.exists()
    assert stored(experiment) == stored(here)
    assert len(kept) * 10**7 > STORE_BYTES


def all_ready(cluster: Any) -> None:
    """Wait for those that start: one alone may train all of the runs before the others can."""
    if starting := [each.starting for each in cluster._workers if each.starting is not None]:
        ray.wait(starting, num_returns=len(starting), timeout=LIMIT)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="no node can have another"
)
def test_another_environment_is_refused_or_recorded(nodes: Cluster, tmp_path: Path) -> None:
    other = nodes.add(env_vars={"ATEN_CPU_CAPABILITY": "default"})
    runs = [small_config(seed=seed) for seed in range(4)]
    try:
        strict = experiment_in(tmp_path / "strict")
        outcome, said = swept(nodes, runs, strict, all_ready)
        assert outcome.trained == 4
        refused = [line for line in said if line.startswith("warning: not used: ")]
        assert len(refused) == 1
        assert "has CPU capability DEFAULT instead of " in refused[0]
        assert stored(strict) == stored(locally(tmp_path / "here", runs))

        accepting = experiment_in(tmp_path / "accepting")
        outcome, said = swept(nodes, runs, accepting, all_ready, accept_changes=True)
        assert outcome.trained == 4
        assert sum(" trains with CPU capability DEFAULT instead of " in line for line in said) == 1
        capabilities = [
            fingerprint["cpu_capability"]
            for run in accepting.runs()
            for fingerprint in (run.manifest() or {})["fingerprints"]
        ]
        assert len(capabilities) == 4
        assert capabilities.count("DEFAULT") >= 1
    finally:
        nodes.kill(other)
