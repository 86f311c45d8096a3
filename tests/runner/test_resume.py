"""Stopped or killed at any point and started again: the same bits as undisturbed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bnbench import store
from bnbench.assemble import build_run
from bnbench.config import identity, schema
from bnbench.errors import Interrupted, StorageError
from bnbench.runner.execution import Build, execute
from bnbench.runner.settings import Settings, Stop
from bnbench.store import ExperimentFolder, RunFolder, files
from tests.injection import Killed, disk, dying, kills, stopping
from tests.processes import started, wait_until
from tests.runs import (
    all_probes,
    committed_step,
    evidence,
    experiment_in,
    run_state,
    slow_norm,
    small_config,
    write_experiment,
)
from tests.stub import build_stub


def every_step(config: schema.RunConfig) -> schema.RunConfig:
    """The same run, which states something after each step."""
    train = config.train.model_copy(update={"log_every": 1})
    return config.model_copy(update={"train": train})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run that nobody disturbs stores."""
    experiment = experiment_in(tmp_path_factory.mktemp("undisturbed"))
    return evidence(execute(small_config(), experiment, Settings()).folder)


def stop_twice_and_go_on(
    config: schema.RunConfig, experiment: ExperimentFolder, step: int, build: Build
) -> dict[str, Any]:
    """Stopped after this step and, gone on from there, after the next; then trained to the end."""
    for again in (step, step + 1):
        stop = Stop()
        with pytest.raises(Interrupted) as stopped:
            execute(config, experiment, Settings(stop=stop), stopping(build, again, stop))
        assert stopped.value.exit_code == 130
        assert str(stopped.value) == (
            f"stopped after step {again} of 16; it is saved\n  the same command goes on from there"
        )
        assert store.read(experiment.run(identity.run_id(config))).state == "interrupted"
    return evidence(execute(config, experiment, Settings(), build).folder)


def test_stopped_after_each_step_and_resumed(tmp_path: Path) -> None:
    config = every_step(small_config())
    whole = execute(config, experiment_in(tmp_path / "whole"), Settings(), build_stub)
    for step in range(2, 15):
        experiment = experiment_in(tmp_path / str(step))
        found = stop_twice_and_go_on(config, experiment, step, build_stub)
        assert found == evidence(whole.folder), f"stopped after step {step}"


@pytest.mark.slow
@pytest.mark.parametrize("probes", [False, True])
def test_a_real_training_is_stopped_and_resumed(tmp_path: Path, probes: bool) -> None:
    """Inside an epoch and at its end (8 steps), with and without probes that remember."""
    config = every_step(small_config(**({"probes": all_probes()} if probes else {})))
    whole = execute(config, experiment_in(tmp_path / "whole"), Settings())
    for step in (2, 7, 8, 14):
        experiment = experiment_in(tmp_path / str(step))
        found = stop_twice_and_go_on(config, experiment, step, build_run)
        assert found == evidence(whole.folder), f"stopped after step {step}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "norm", [schema.BatchNormConfig(), schema.GroupNormConfig(kind="group", groups=2)]
)
def test_stopped_and_resumed_on_a_gpu(tmp_path: Path, norm: schema.NormConfig) -> None:
    config = every_step(small_config(norm=norm, compute=schema.ComputeConfig(device="cuda")))
    whole = execute(config, experiment_in(tmp_path / "whole"), Settings())
    found = stop_twice_and_go_on(config, experiment_in(tmp_path / "stopped"), 7, build_run)
    assert found == evidence(whole.folder)


def test_the_optimizer_s_state_is_stored_only_while_steps_may_follow(tmp_path: Path) -> None:
    """It is as large as the weights. A run whose result is lost goes on from what is kept."""
    experiment, config = experiment_in(tmp_path), small_config()
    with pytest.raises(Killed):
        execute(config, experiment, Settings(), dying(build_run, 9))
    folder = experiment.run(identity.run_id(config))
    assert run_state(folder)["run"]["optimizer"]["state"]
    before = evidence(execute(config, experiment, Settings()).folder)
    assert run_state(folder)["run"]["optimizer"]["state"] == {}
    assert not folder.path.joinpath("checkpoint.prev.pt").exists()
    (folder.path / "result.json").unlink()
    assert evidence(execute(config, experiment, Settings()).folder) == before


@pytest.mark.parametrize("item", ["model", "optimizer", "step", "losses", "metrics_bytes"])
def test_negative_control_a_state_without_this_item_is_noticed(
    tmp_path: Path, undisturbed: dict[str, Any], item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks resuming on purpose: the comparison above must be able to fail."""
    from bnbench.train import Run

    config = small_config()
    experiment = experiment_in(tmp_path)
    # Killed after step 9's report: the checkpoint is of step 8, inside an interval of reports, so
    # that losses are pending; and events follow it, which going on must cut.
    with pytest.raises(Killed):
        execute(config, experiment, Settings(), dying(build_run, 9))
    assert run_state(experiment.run(identity.run_id(config)))["run"]["losses"]
    load = Run.load_state_dict

    def forgetful(run: Run, state: dict[str, Any]) -> None:
        fresh = run.state_dict()
        load(run, {key: fresh[key] if key == item else value for key, value in state.items()})

    monkeypatch.setattr(Run, "load_state_dict", forgetful)
    if item == "metrics_bytes":

        def uncut(folder: RunFolder, keep: int, *_: Any) -> files.Appender:
            assert keep > 0
            path = folder.path / "metrics.jsonl"
            return files.Appender(path, keep=path.stat().st_size)

        monkeypatch.setattr(RunFolder, "metrics", uncut)
    assert evidence(execute(config, experiment, Settings()).folder) != undisturbed


@pytest.mark.slow
def test_negative_control_a_probe_without_its_memory_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnbench.train import Run

    config = small_config(probes=all_probes())
    whole = evidence(execute(config, experiment_in(tmp_path / "whole"), Settings()).folder)
    assert any("drift" in event.get("name", "") for event in whole["events"])
    experiment = experiment_in(tmp_path / "killed")
    with pytest.raises(Killed):
        execute(config, experiment, Settings(), dying(build_run, 9))
    load = Run.load_state_dict
    forget: dict[str, Any] = {"probes": {}}
    with monkeypatch.context() as patched:
        patched.setattr(Run, "load_state_dict", lambda run, state: load(run, state | forget))
        assert evidence(execute(config, experiment, Settings()).folder) != whole


@pytest.mark.slow
def test_probes_may_be_others_when_a_run_goes_on(tmp_path: Path) -> None:
    """They are not part of what a run is: with them or without, the result is the same."""
    results = []
    for name, first, then in (("on", False, True), ("off", True, False)):
        experiment = experiment_in(tmp_path / name)
        configs = [
            small_config(**({"probes": all_probes()} if probes else {})) for probes in (first, then)
        ]
        with pytest.raises(Killed):
            execute(configs[0], experiment, Settings(), dying(build_run, 9))
        found = evidence(execute(configs[1], experiment, Settings()).folder)
        kinds = [(event["event"], event["step"]) for event in found["events"]]
        assert (("probe", 16) in kinds) == then
        assert (("probe", 4) in kinds) == first
        weights = {key: v for key, v in found["tensors"].items() if key.startswith("model")}
        results.append((found["result"], weights))
    assert results[0] == results[1]


def kill_and_go_on(
    path: Path, build: Build, undisturbed: dict[str, Any], every: int = 1
) -> set[str]:
    """Killed at one file operation after the other, each time gone on with; the operations."""
    config = small_config()
    with disk(path) as whole:
        execute(config, experiment_in(path / "whole"), Settings(), build)
    assert len(whole.seen) > 60
    for number, failure in kills(whole.seen)[::every]:
        experiment = experiment_in(path / f"{number}-{failure}")
        with disk(path, number, failure), pytest.raises(Killed):
            execute(config, experiment, Settings(), build)
        found = evidence(execute(config, experiment, Settings(), build).folder)
        assert found == undisturbed, f"{failure} at operation {number}: {whole.seen[number - 1]}"
        shutil.rmtree(experiment.path.parent)
    return set(whole.seen)


@pytest.mark.slow
def test_killed_at_every_file_operation(tmp_path: Path) -> None:
    whole = execute(small_config(), experiment_in(tmp_path / "first"), Settings(), build_stub)
    seen = kill_and_go_on(tmp_path, build_stub, evidence(whole.folder))
    assert {"write metrics.jsonl", "replace checkpoint.pt", "replace result.json.tmp"} <= seen


@pytest.mark.slow
def test_a_real_training_is_killed_at_every_seventh_file_operation(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    kill_and_go_on(tmp_path, build_run, undisturbed, every=7)


@pytest.mark.slow
def test_negative_control_a_commit_in_place_does_not_survive_every_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes checkpoints over each other: the kills above must be able to find that."""

    def commit(folder: RunFolder, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest().encode()
        with (folder.path / "checkpoint.pt").open("wb") as file:
            file.write(content + b"bnbench-sha256:" + digest)

    monkeypatch.setattr(RunFolder, "commit", commit)
    whole = execute(small_config(), experiment_in(tmp_path / "first"), Settings(), build_stub)
    with pytest.raises(StorageError, match=r"checkpoint\.pt damaged, no whole checkpoint left"):
        kill_and_go_on(tmp_path, build_stub, evidence(whole.folder))


def training(path: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    """`bnbench train` in a process and a group of its own."""
    command = [sys.executable, "-m", "bnbench", "train", "long.yaml", "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return started(*command, cwd=path, env=environment, stderr=subprocess.PIPE)


def reached(folder: RunFolder, step: int) -> bool:
    """Whether it has committed this step."""
    return committed_step(folder) >= step


LONG = "setups: {bn: {}}\ncompute: {threads: 1}\n"


def long_run(path: Path, steps: int, norm: str = "") -> schema.RunConfig:
    """A file of one run of so many steps, committed every 30 of them."""
    from bnbench.config import loading, plans

    text = LONG + "optim: {lr: 0.01}\n" + norm
    write_experiment(path / "long.yaml", text)
    content = (path / "long.yaml").read_text()
    budget = f"train: {{steps: {steps}, evaluations: 3, checkpoint_every: 30, log_every: 7}}"
    content = content.replace("train: {epochs: 2, evaluations: 2, checkpoint_every: 4}", budget)
    (path / "long.yaml").write_text(content)
    return plans.expand(loading.load_experiment(path / "long.yaml")).only()


@pytest.mark.slow
def test_a_real_sigkill_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    config = long_run(tmp_path, 240, f"norm: {json.dumps(slow_norm(slow, quick=65))}\n")
    whole = evidence(execute(config, ExperimentFolder(tmp_path / "whole"), Settings()).folder)
    folder = ExperimentFolder(tmp_path / "runs" / "long").run(identity.run_id(config))
    last = 0
    slow.touch()
    for attempt in (1, 2):
        with training(tmp_path) as process:
            wait_until(partial(reached, folder, last + 60), process=process)
        assert process.returncode == -signal.SIGKILL
        assert store.read(folder).state == "interrupted", f"attempt {attempt}"
        step = committed_step(folder)
        assert last < step < 240, "progress is monotone, and the kill came before the end"
        last = step
    slow.unlink()
    with training(tmp_path) as process:
        assert process.wait() == 0
    assert evidence(folder) == whole


@pytest.mark.slow
def test_a_real_ctrl_c_commits_and_says_how_to_go_on(tmp_path: Path) -> None:
    config = long_run(tmp_path, steps=100_000)
    folder = ExperimentFolder(tmp_path / "runs" / "long").run(identity.run_id(config))
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = committed_step(folder)
        with training(tmp_path) as process:
            wait_until(partial(reached, folder, before + 1), process=process)
            process.send_signal(number)
            _, said = process.communicate()
            assert process.returncode == code
        step = committed_step(folder)
        assert said.splitlines() == [
            "stopping after this step (again: at once)",
            f"stopped after step {step} of 100000; it is saved",
            "  the same command goes on from there",
        ]


def test_a_library_may_make_an_interrupt_of_its_own_from_ours() -> None:
    """As Ray does, where a signal comes while it waits: the sentence and the exit code stay."""

    def library() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped, Stop(saved=lambda: True).listening():
        library()
    assert (stopped.value.what, stopped.value.exit_code) == ("stopped", 143)
    assert "goes on from the last checkpoint" in str(stopped.value.do)
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyboardInterrupt) as other, Stop().listening():
        raise KeyboardInterrupt
    assert not isinstance(other.value, Interrupted)
