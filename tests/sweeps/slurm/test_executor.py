"""Runs that wait in a queue: what is submitted together, what is lost, who looks after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnbench.config import files, identity, schema
from bnbench.errors import ClusterError, Interrupted
from bnbench.runner.provenance import environment
from bnbench.sweeps.jobs import SweepOutcome, Train
from bnbench.sweeps.slurm import share
from tests.commands import bnbench
from tests.extras import required
from tests.runs import MANIFEST, small_config
from tests.sweeps.slurm.scheduler import PRINTED, Cluster, Swept, begun, done, left

submitit = required("submitit")


@pytest.fixture
def swept(tmp_path: Path) -> Swept:
    return Swept(tmp_path, seconds=100.0)


def seeds(count: int) -> list[schema.RunConfig]:
    return [small_config(seed=seed) for seed in range(count)]


@given(st.lists(st.floats(0.0, 9.0), min_size=1, max_size=20), st.integers(1, 9))
def test_tasks_have_runs_in_their_order_and_about_the_same_work(
    seconds: list[float], number: int
) -> None:
    trains = [Train(small_config(), each) for each in seconds]
    divided = share.shares(trains, number)
    assert [train for share in divided for train in share] == trains
    assert len(divided) <= number
    work = [[train.seconds or 1.0 for train in share] for share in divided]
    whole, longest = sum(map(sum, work)), max(map(max, work))
    assert max(map(sum, work)) <= whole / number + longest + 1e-9


@pytest.mark.parametrize(("workers", "tasks"), [("auto", 2), ("5", 5), ("99", 12)])
def test_short_runs_share_a_task(swept: Swept, workers: str, tasks: int) -> None:
    """1,200 seconds are two tasks of ten minutes, unless so many are asked for."""
    cluster = Cluster()
    outcome = swept(seeds(12), cluster, workers=workers)
    assert outcome == SweepOutcome(runs=12, trained=12)
    sizes = [len(each) for each in cluster.submitted]
    assert len(sizes) == tasks
    assert max(sizes) - min(sizes) <= 1
    assert sorted(run.seed for each in cluster.submitted for run in each) == list(range(12))
    assert f"12 runs submitted as job 0: {tasks} tasks, about " in swept.said.getvalue()
    assert cluster.minutes == 10 + round(3 * max(sizes) * 100 / 60)


def test_tasks_train_as_many_runs_at_a_time_as_they_have_cores(swept: Swept) -> None:
    cluster = Cluster()
    cluster.workers = 4
    swept(seeds(12), cluster, workers="auto")
    assert [len(each) for each in cluster.submitted] == [12], "5 minutes, four at a time"
    assert cluster.at_a_time == {4}


def test_what_is_found_is_not_submitted(swept: Swept) -> None:
    swept(seeds(3), Cluster())
    again = Cluster()
    assert swept(seeds(4), again) == SweepOutcome(runs=4, found=3, trained=1)
    assert [[run.seed for run in each] for each in again.submitted] == [[3]]


def test_a_lost_task_costs_the_run_that_it_trained_an_attempt(swept: Swept) -> None:
    lost: list[str] = []

    def once(number: str, task: share.Share) -> None:
        if not lost:
            lost.append(number)
            done(task, 1)
            begun(replaced(task, task.configs[1:]))
        else:
            done(task)

    cluster = Cluster(once)
    assert swept(seeds(4), cluster, workers="1") == SweepOutcome(runs=4, trained=4)
    assert [{run.seed for run in each} for each in cluster.submitted[1:]] == [{1, 2, 3}]
    assert "was lost with task 0_0 (" in swept.said.getvalue()


def replaced(task: share.Share, configs: tuple[schema.RunConfig, ...]) -> share.Share:
    """The same task with these runs."""
    return share.Share(configs, 1, task.experiment, task.options, task.command)


def test_a_run_that_loses_every_task_fails(swept: Swept) -> None:
    steps = iter(range(100))

    def dies(_: str, task: share.Share) -> None:
        begun(task)
        folder = task.experiment.run(identity.run_id(task.configs[0]))
        more = folder.path / "metrics.jsonl"
        more.write_bytes(more.read_bytes() * (2 + next(steps)))

    outcome = swept(seeds(1), cluster := Cluster(dies))
    assert len(cluster.submitted) == 3
    ((_, why),) = outcome.failures
    assert "3 times" in why


def test_tasks_that_train_nothing_are_not_submitted_forever(swept: Swept) -> None:
    cluster = Cluster(lambda *_: None)
    with pytest.raises(ClusterError, match="3 tasks in a row ended before they trained") as error:
        swept(seeds(2), cluster, workers="1")
    assert len(cluster.submitted) == 3
    assert "_0_log.err" in str(error.value.do)


def test_runs_of_a_task_that_was_ended_queue_up_again(swept: Swept) -> None:
    def twice(number: str, task: share.Share) -> None:
        if number.startswith(("0", "1")):
            begun(task)
            left(task, number, "told to end by SIGTERM", told=True)
        else:
            done(task)

    outcome = swept(seeds(2), Cluster(twice), workers="1")
    assert outcome == SweepOutcome(runs=2, trained=2)
    said = swept.said.getvalue()
    assert said.count("was told to end by SIGTERM: its runs queue up again") == 2
    assert "was lost" not in said


def test_tasks_work_as_the_first_run_of_the_study_has(swept: Swept) -> None:
    """Whoever has driven it, and on which machine, but with the code of this bnbench; of a run that
    somebody has removed nothing is left."""
    record = swept.experiment.path / share.ENVIRONMENT
    asked: list[bool] = []

    def once(_: str, task: share.Share) -> None:
        asked.append(record.exists())
        assert task.options.environment == share.ENVIRONMENT
        done(task)

    swept(seeds(1), Cluster(once))
    manifest = {"versions": {"bnbench": "0.0"}, "fingerprints": [PRINTED, {"torch": "9"}]}
    (swept.experiment.runs()[0].path / "manifest.json").write_text(json.dumps(MANIFEST | manifest))
    swept(seeds(2), Cluster(once))
    first = {"bnbench": "0.0", "torch": "1.0", "CPU capability": "NO"}
    assert json.loads(record.read_bytes()) == environment() | first
    shutil.rmtree(swept.experiment.runs()[0].path)
    shutil.rmtree(swept.experiment.runs()[0].path)
    swept(seeds(1), Cluster(once))
    assert asked == [False, True, False]


def test_a_node_of_another_kind_ends_the_sweep(swept: Swept) -> None:
    cluster = Cluster(lambda number, task: left(task, number, "n7 is another", told=False))
    with pytest.raises(ClusterError, match="n7 is another") as error:
        swept(seeds(4), cluster, workers="2")
    assert error.value.exit_code == 4
    assert error.value.do == "do this"
    assert cluster.cancelled == ["0_1"], "the one that did not have its turn"


def test_a_driver_may_leave_and_the_next_one_looks_after_its_tasks(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    assert swept(seeds(3), cluster, workers="2", detach=True).done == 0
    assert sorted(map(len, cluster.submitted)) == [1, 2]
    status = ("status", "small", "--runs-dir", str(swept.experiment.path.parent))
    scripts, waits = f"{swept.experiment.path}/slurm/", "submitted, not begun"
    gone = "no longer queued; the same sweep submits them again"
    for queued, how in ((None, waits), ({"0_1": "Resources"}, waits), ({"1_0": ""}, gone)):
        monkeypatch.setattr("bnbench.sweeps.slurm.cluster._queued", {scripts: queued}.__getitem__)
        assert bnbench(*status).out.splitlines()[-1].endswith(f" of job 0: {how}")
    outcome = swept([*seeds(3), small_config(seed=9)], cluster, workers="2")
    assert (outcome.done, outcome.failures) == (4, [])
    assert [[run.seed for run in each] for each in cluster.submitted[2:]] == [[9]]
    assert "1 task of an earlier command still there" in swept.said.getvalue()
    swept(seeds(5), Cluster(), workers="1")
    records = [path.name for path in (swept.experiment.path / "slurm").glob("tasks_*")]
    assert records == ["tasks_0.json"], "of those that have ended nothing is kept"


def test_a_job_that_no_command_has_recorded_is_cancelled(swept: Swept) -> None:
    """SLURM took it after its command was killed, or had given up."""
    cluster = Cluster()
    swept(seeds(3), cluster, workers="3", detach=True)
    (swept.experiment.path / "slurm" / "tasks_0.json").unlink()
    outcome = swept(seeds(4), cluster, workers="1")
    assert (outcome.done, outcome.failures, cluster.cancelled) == (4, [], ["0"])
    assert "note: job 0 is cancelled: " in swept.said.getvalue()


def test_a_job_that_another_command_is_submitting_is_left_to_it(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM has it; the command has not recorded it yet."""
    cluster = Cluster()
    swept(seeds(3), cluster, workers="3", detach=True)
    (swept.experiment.path / "slurm" / "tasks_0.json").unlink()
    monkeypatch.setattr(share, "SUBMITTING_SECONDS", 0.05)
    with share.submitting(swept.experiment), pytest.raises(ClusterError, match="another command"):
        swept(seeds(4), cluster, workers="1")
    assert cluster.cancelled == []


def test_what_an_earlier_task_has_said_at_its_end_is_told(swept: Swept) -> None:
    cluster = Cluster(lambda number, task: left(task, number, "n7 is another", told=False))
    swept(seeds(1), cluster, workers="1", detach=True)
    cluster.active(["0_0"], swept.experiment.path / "slurm")
    swept(seeds(1), Cluster(), workers="1")
    assert "note: task 0_0 has ended: n7 is another" in swept.said.getvalue()


@pytest.mark.parametrize("content", ["", "[]", '{"7": 1}', '{"7": [1, null]}', "{"])
def test_a_record_that_is_none_is_passed_over(swept: Swept, content: str) -> None:
    folder = swept.experiment.path / "slurm"
    folder.mkdir(parents=True)
    (folder / "tasks_7.json").write_text(content)
    assert swept(seeds(1), Cluster()).trained == 1


def test_a_failed_run_fails_and_may_be_tried_again(swept: Swept) -> None:
    def fails(_: str, task: share.Share) -> None:
        for config in task.configs:
            folder = task.experiment.run(identity.run_id(config))
            folder.begin(config_text=files.dump(config), manifest=MANIFEST)
            folder.fail({"error": "ValueError", "message": "no", "of_the_machine": False})

    outcome = swept(seeds(1), Cluster(fails))
    assert [why for _, why in outcome.failures] == ["no"]
    slow = Cluster(lambda number, task: done(task) if number != "0_0" else begun(task))
    assert swept(seeds(1), slow, retry_failed=True) == SweepOutcome(runs=1, trained=1)


class Waiting(Cluster):
    """Its tasks wait for long."""

    def active(self, ids: Iterable[str], folder: Path) -> Mapping[str, str]:
        """A reason for each."""
        return dict.fromkeys(super().active(ids, folder), "PartitionTimeLimit")


@pytest.mark.parametrize("detach", [False, True])
def test_why_tasks_wait_is_said_once_where_waiting_may_not_help(swept: Swept, detach: bool) -> None:
    swept(seeds(3), Waiting(), workers="3", detach=detach)
    assert swept.said.getvalue().count("note: tasks wait: PartitionTimeLimit") == 1


def test_a_scheduler_that_does_not_answer_is_spoken_of_once(swept: Swept) -> None:
    class Silent(Cluster):
        silent = 2

        def active(self, ids: Iterable[str], folder: Path) -> Any:
            self.silent -= 1
            return super().active(ids, folder) if self.silent < 0 else None

    assert swept(seeds(3), Silent(), workers="3").trained == 3
    said = swept.said.getvalue()
    assert said.count("note: SLURM does not answer; tasks go on, and it is asked again") == 1


def test_stopping_takes_the_tasks_out_of_the_queue(swept: Swept) -> None:
    def stops(_: str, task: share.Share) -> None:
        begun(task)
        swept.stop.exit_code = 130

    cluster = Cluster(stops)
    with pytest.raises(Interrupted) as stopped:
        swept(seeds(4), cluster, workers="4")
    assert stopped.value.exit_code == 130
    assert set(cluster.cancelled) >= {"0_1", "0_2", "0_3"}
    found = bnbench("status", "small", "--runs-dir", str(swept.experiment.path.parent))
    assert found.code == 0
    assert "submitted" not in found.out
