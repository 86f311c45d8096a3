"""What SLURM is asked, and what its answers mean; its commands are scripts of the test's own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bnbench.errors import ClusterError, UsageError
from bnbench.sweeps import scheduler
from tests.commands import bnbench
from tests.extras import required
from tests.runs import write_experiment

submitit = required("submitit")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands, the only ones that are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
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
    settings = ("partition=short", "--gpus-per-node=1", "exclusive=")
    cluster = scheduler.connect(settings, cpus=4)
    assert cluster.cpus == 4
    assert (commands / "asked").read_text().split() == [
        "--test-only",
        "--partition=short",
        "--gpus-per-node=1",
        "--exclusive",
        "--cpus-per-task=4",
        "--wrap=true",
    ]
    assert scheduler.connect(("cpus-per-task=9",), cpus=4).cpus == 9


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
            "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            ClusterError,
            "SLURM takes no jobs now: AssocMaxSubmitJobLimit",
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
        scheduler.connect((), cpus=1)
    assert words in refused.value.what
    assert "--slurm" in str(refused.value.do)
    assert refused.value.exit_code == (2 if kind is UsageError else 4)


def test_a_scheduler_that_does_not_answer_is_not_waited_for(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "ANSWER_SECONDS", 0.2)
    cluster = scheduler.connect((), cpus=1)
    for name in ("sbatch", "squeue"):
        write(commands / name, "exec /bin/sleep 20")
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="timed out"):
        scheduler.connect((), cpus=1)
    assert cluster.active(["1_0"], Path("/")) is None, "nobody knows, so that nothing is lost"
    assert time.monotonic() - begun < 5


def test_only_tasks_of_this_folder_are_active(commands: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "study" / "slurm"
    lines = (
        f"7_0|Resources|{folder}/submission_file_1.sh",
        f"7_1|None|{folder}/submission_file_1.sh",
        "8|None|/home/somebody/else.sh",
    )
    write(commands / "squeue", "\n".join(f"echo '{line}'" for line in lines))
    active = scheduler.connect((), cpus=1).active(["7_0", "7_1", "7_2", "8"], folder)
    assert active == {"7_0": "Resources", "7_1": "None"}, "8 is another's: never to be cancelled"


@pytest.mark.parametrize("setting", ["partition", "=short", "a b=c", "array=1-9", "cluster=moon"])
@pytest.mark.usefixtures("commands")
def test_settings_that_mean_nothing_are_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="--slurm"):
        scheduler.connect((setting,), cpus=1)


@pytest.mark.parametrize("setting", ["time=soon", "signal=USR2", "cpus_per_task=many"])
def test_so_are_values_of_the_stand_in(setting: str) -> None:
    with pytest.raises(UsageError, match="--slurm"):
        scheduler.connect(("cluster=local", setting), cpus=1)


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
