"""What SLURM is asked, and what its answers mean; its commands are scripts of the test's own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.errors import ClusterError, UsageError
from bnbench.sweeps.slurm import cluster
from tests.commands import bnbench
from tests.extras import required
from tests.processes import LIMIT
from tests.runs import small_config, write_experiment

submitit = required("submitit")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, the only ones that are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "echo").symlink_to(shutil.which("echo") or "")
    monkeypatch.setenv("PATH", str(folder))
    for name in ("sbatch", "squeue", "srun", "scancel"):
        write(folder / name, ":")
    return folder


def write(path: Path, body: str) -> None:
    """A shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_what_is_asked_for_is_tried_before_anything_is_submitted(commands: Path) -> None:
    write(commands / "sbatch", f'echo "$@" > {commands}/asked')
    settings = ("partition=short", "--gpus-per-node=1", "mem=9G", "exclusive=")
    found = cluster.connect(settings, [using(threads=4)], "cuda")
    assert found.workers == 1
    assert (commands / "asked").read_text().split() == [
        "--test-only",
        "--partition=short",
        "--gpus-per-node=1",
        "--mem=9G",
        "--exclusive",
        "--cpus-per-task=4",
        "--wrap=true",
    ]
    assert cluster.connect(("cpus-per-task=9",), [using(threads=4)], None).workers == 2


def test_tasks_are_gone_only_where_squeue_says_so(commands: Path) -> None:
    write(commands / "squeue", f"echo '1_0|None|{commands}/1_0.sh'")
    assert cluster.gone(["1_0", "1_1"], commands) == {"1_1"}
    (commands / "squeue").unlink()
    assert cluster.gone(["1_0", "1_1"], commands) == set()


def using(**compute: Any) -> schema.RunConfig:
    """A run that declares this."""
    return small_config(compute=small_config().compute.model_copy(update=compute))


@pytest.mark.parametrize(
    ("device", "declared", "gpus"),
    [(None, "auto", []), (None, "cuda", ["--gres=gpu:1"]), ("cuda:1", "auto", ["--gres=gpu:2"])],
)
def test_a_task_has_the_memory_and_the_gpu_of_its_runs(
    commands: Path, device: str | None, declared: str, gpus: list[str]
) -> None:
    """Twice what is known of a process that has trained a small run and its few tensors, for each
    run that a task trains at a time: of two threads, on eight cores."""
    write(commands / "sbatch", f'echo "$@" > {commands}/asked')
    runs = [using(threads=2, device=declared)]
    assert cluster.connect(("cpus_per_task=8",), runs, device).workers == 4
    first, memory, *others = (commands / "asked").read_text().split()
    assert (first, others) == ("--test-only", [*gpus, "--cpus-per-task=8", "--wrap=true"])
    megabytes = int(memory.removeprefix("--mem-per-cpu=").removesuffix("M"))
    assert 600e6 < megabytes * 2**20 < 610e6


VIOLATES = (
    "allocation failure: Job violates accounting/QOS policy (job submit limit, user's size and/or "
    "time limits)"
)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        # As SLURM 22.05 says it.
        (
            "sbatch: error: invalid partition specified: nowhere\n"
            "allocation failure: Invalid partition name specified",
            UsageError,
            "SLURM refuses the jobs: invalid partition specified: nowhere; allocation failure: Inv",
        ),
        (
            "allocation failure: Requested node configuration is not available",
            UsageError,
            "Requested node configuration is not available",
        ),
        (
            "sbatch: unrecognized option '--bla=7'\nTry \"sbatch --help\" for more information",
            UsageError,
            "unrecognized option '--bla=7'",
        ),
        (
            f"sbatch: error: AssocMaxSubmitJobLimit\n{VIOLATES}",
            ClusterError,
            "SLURM takes no jobs now: AssocMaxSubmitJobLimit",
        ),
        (
            f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{VIOLATES}",
            ClusterError,
            "SLURM takes no jobs now: QOSMaxSubmitJobPerUserLimit",
        ),
        (
            f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{VIOLATES}",
            UsageError,
            "SLURM refuses the jobs: QOSMaxWallDurationPerJobLimit",
        ),
        (
            "sbatch: error: Unable to contact slurm controller (connect failure)",
            ClusterError,
            "Unable to contact slurm controller",
        ),
        (
            "resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\n"
            "sbatch: fatal: Could not establish a configuration source",
            ClusterError,
            "this machine knows no SLURM cluster: res_nsearch error: Unknown host",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing "
            "or exceeds some limit)",
            UsageError,
            "Requested time limit is invalid",
        ),
        ("", UsageError, "it says no reason"),
    ],
)
def test_a_refusal_says_why_in_the_words_of_slurm(
    commands: Path, said: str, kind: type[UsageError | ClusterError], words: str
) -> None:
    (commands / "said").write_text(said)
    write(commands / "sbatch", f"/bin/cat {commands}/said >&2; exit 1")
    with pytest.raises(kind) as refused:
        cluster.connect((), [small_config()], None)
    assert words in refused.value.what
    assert "--slurm" in str(refused.value.do)
    assert refused.value.exit_code == (2 if kind is UsageError else 4)


def test_a_scheduler_that_does_not_answer_is_not_waited_for(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cluster.connect((), [small_config()], None)
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.2)
    for name in ("sbatch", "squeue"):
        write(commands / name, "exec /bin/sleep 3600")
    with pytest.raises(ClusterError, match="timed out"):
        cluster.connect((), [small_config()], None)
    assert found.active(["1_0"], Path("/")) is None, "nobody knows, so that nothing is lost"


RETRYING = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"
"""As SLURM 22.05 says it, and then tries again for two minutes."""


@pytest.mark.parametrize(
    ("body", "seconds", "submitted"),
    [(f"echo '{RETRYING}' >&2; exec /bin/sleep 60", 0.5, False),
     ('echo "$1" > $0.taken; echo "sbatch: error: Socket timed out" >&2; exit 1', LIMIT, True),
     ("/bin/sleep 1; echo Submitted batch job 7", 0.5, True)],
)  # fmt: skip
def test_a_queue_that_is_full_is_not_waited_for_and_nothing_is_submitted_twice(
    commands: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    seconds: float,
    submitted: bool,
) -> None:
    """What ends with an error, or is killed, may have submitted: the queue shows it."""
    found = cluster.connect((), [small_config()], None)
    write(commands / "sbatch", body)
    write(
        commands / "squeue",
        "echo '6_0|None|/home/of/another.sh'\n"
        f'read script < {commands}/sbatch.taken && echo "7_1|None|$script"',
    )
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", seconds)
    tasks = [lambda: None] * 2
    if submitted:
        assert found.submit(tasks, tmp_path, "name", 1, 2) == ["7_0", "7_1"]
        return
    with pytest.raises(ClusterError, match=r"Slurm temporarily .*; sbatch timed out"):
        found.submit(tasks, tmp_path, "name", 1, 2)


def test_an_array_that_is_too_long_has_fewer_tasks() -> None:
    """Not a partition that is called so."""
    for said, fewer in ("Invalid job array specification", True), ("no partition arrays", False):
        refused = cluster.refused(f"Batch job submission failed: {said}")
        assert (refused.exit_code, "--workers N" in str(refused.do)) == (2, fewer)


def test_only_tasks_of_this_folder_are_active(commands: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "study" / "slurm"
    lines = (
        f"7_0|Resources|{folder}/submission_file_1.sh",
        f"7_1|None|{folder}/submission_file_1.sh",
        "8|None|/home/somebody/else.sh",
    )
    write(commands / "squeue", "\n".join(f"echo '{line}'" for line in lines))
    active = cluster.connect((), [small_config()], None).active(["7_0", "7_1", "7_2", "8"], folder)
    assert active == {"7_0": "Resources", "7_1": "None"}, "8 is another's: never to be cancelled"


@pytest.mark.parametrize("setting", ["partition", "=short", "a b=c", "array=1-9", "cluster=moon"])
@pytest.mark.usefixtures("commands")
def test_settings_that_mean_nothing_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="--slurm"):
        cluster.connect((setting,), [small_config()], None)


@pytest.mark.parametrize("setting", ["time=soon", "signal=USR2", "cpus_per_task=many"])
def test_so_are_values_of_the_stand_in(setting: str) -> None:
    with pytest.raises(UsageError, match="--slurm"):
        cluster.connect(("cluster=local", setting), [small_config()], None)


@pytest.mark.parametrize(
    ("key", "do"), [("tmie", "did you mean time?"), ("partition", "leave it out")]
)
def test_the_stand_in_knows_few_keys(key: str, do: str) -> None:
    with pytest.raises(UsageError, match=f"^--slurm {key}: cluster=local knows") as refused:
        cluster.connect(("cluster=local", f"{key}=5"), [small_config()], None)
    assert str(refused.value.do).startswith(do)


@pytest.mark.usefixtures("own_folder")
def test_without_slurm_the_command_says_where_to_run_it(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (commands / "sbatch").unlink()
    write_experiment(Path("study.yaml"))
    said = bnbench("sweep", "study.yaml", "--on", "slurm")
    assert said.code == 2
    assert "there is no sbatch" in said.err
    assert "login node" in said.err
    assert not Path("runs").exists()
    said = bnbench("sweep", "study.yaml", "--detach")
    assert said.code == 2
    assert "add --on slurm" in said.err
    monkeypatch.setitem(sys.modules, "submitit", None)
    said = bnbench("sweep", "study.yaml", "--on", "slurm")
    assert said.code == 2
    assert "pip install 'bnbench[slurm]'" in said.err
