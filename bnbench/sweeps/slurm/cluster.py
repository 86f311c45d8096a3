"""A cluster that submitit knows: what its jobs ask for, which are there, what it refuses.

`--slurm cluster=local` is submitit's stand-in: each task is a process of this machine.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from bnbench.config import schema
from bnbench.errors import ClusterError, RunError, UsageError
from bnbench.runner.settings import threads_of
from bnbench.wording import nearest, printable

ANSWER_SECONDS = 10.0
"""The scheduler's commands try again for minutes where nobody answers, or its queue is full."""

SUBMIT_SECONDS = 30.0
"""So much longer for an sbatch that has not said that it tries again. With the time that squeue may
take it is less than the minute for which a task waits for what submitit has it do."""

ASK_SECONDS = 30.0
"""How often to ask the scheduler, in one question, which tasks there are."""

SIGNAL_SECONDS = 60
"""So long before its time limit a task is told: for a step, a commit and the way back."""

MEMORY_FACTOR = 2
"""How much of what runs need, as far as it is known, is asked for: SLURM kills what takes more."""

ALWAYS = 10**6
"""So often a task may reach its time limit: it stops by itself where it does not get on."""

OURS = ("array", "error", "open_mode", "output", "wrap")
"""What a job is told by us."""

NOT_NOW = re.compile(
    r"submit limit|(Assoc|QOS)\w*Limit|quota|contact|connect|communication"
    r"|temporarily|timed out",
    re.IGNORECASE,
)
"""In a refusal: the request may be right, but the cluster is full or away."""

TOO_LARGE = re.compile(r"(Assoc|QOS)(Min|\w+Per(Job|Node))")
"""In a refusal: a limit on each job, for which waiting is no help."""


class Cluster(Protocol):
    """Where tasks run. `asks_seconds`: how often to ask for the `active` ones. `workers`: how many
    runs a task trains at a time."""

    asks_seconds: float
    workers: int

    def submit(
        self, tasks: Sequence[Callable[[], None]], folder: Path, name: str, minutes: int, most: int
    ) -> list[str]:
        """Have these called, at most so many at a time; their ids. Raises UsageError where the
        request is refused, ClusterError where the cluster takes nothing now."""

    def active(self, ids: Iterable[str], folder: Path) -> Mapping[str, str] | None:
        """Tasks of a folder that wait or run, these among them, each with why it waits; None where
        nobody answers."""

    def cancel(self, ids: Iterable[str]) -> None:
        """Have these end, those that run after a SIGTERM."""


def connect(
    settings: Sequence[str], runs: Sequence[schema.RunConfig], device: str | None
) -> Cluster:
    """The cluster of `--slurm KEY=VALUE …`, whose tasks have what one of these runs needs at a time
    unless it says so: cores, memory and, where `device` or the run names one, a GPU.

    Raises UsageError and ClusterError for what can be known before anything is submitted.
    """
    parameters: dict[str, str | bool] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not equals or not re.fullmatch(r"[a-z][a-z_]*", key):
            raise UsageError(f"--slurm {printable(setting)}: KEY=VALUE is wanted, as partition=gpu")
        if key in OURS:
            raise UsageError(f"--slurm {key}: bnbench decides that itself")
        parameters[key] = value or True  # as sbatch has its flags
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UsageError("submitit is not installed", do="pip install 'bnbench[slurm]'") from None
    logging.getLogger("submitit").setLevel(logging.CRITICAL)  # what it says we say in our words
    place = parameters.pop("cluster", "slurm")
    if place not in ("slurm", "local"):
        raise UsageError(
            f"--slurm cluster={printable(str(place))}: it is slurm, or local for a trial"
        )
    threads = threads_of(runs)
    wanted = str(parameters.pop("cpus_per_task", threads))
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UsageError(f"--slurm cpus_per_task={printable(wanted)}: a number of cores is wanted")
    workers = max(1, int(wanted) // threads)
    if place == "local":
        return _Local(parameters, workers)
    return _Slurm(parameters, int(wanted), workers, runs, device)


def _needs(
    given: Iterable[str], runs: Sequence[schema.RunConfig], device: str | None
) -> dict[str, str]:
    """What runs need besides their cores, in options of sbatch, unless one like it is given."""
    from bnbench.runner.rehearsal import memory  # imports torch

    found: dict[str, str] = {}
    if not any(key.startswith("mem") for key in given):
        megabytes = -(-MEMORY_FACTOR * memory(runs) // (threads_of(runs) * 2**20))
        found["mem_per_cpu"] = f"{megabytes}M"
    named = {each for run in runs if (each := device or run.compute.device).startswith("cuda")}
    if named and not any(key.startswith(("gpu", "gres")) for key in given):
        # cuda:3 is there only among four.
        found["gres"] = f"gpu:{max(int(each.partition(':')[2] or 0) for each in named) + 1}"
    return found


class _Slurm:
    asks_seconds = ASK_SECONDS

    def __init__(
        self,
        parameters: Mapping[str, str | bool],
        cpus: int,
        workers: int,
        runs: Sequence[schema.RunConfig],
        device: str | None,
    ) -> None:
        if any(shutil.which(command) is None for command in ("sbatch", "squeue", "srun")):
            raise UsageError(
                "there is no sbatch: this machine has no SLURM commands",
                do="run it on a login node of the cluster; --slurm cluster=local tries it here",
            )
        self.workers, self._cpus = workers, cpus
        asked = {**_needs(parameters, runs, device), **parameters}
        self._asked = {"signal": f"USR2@{SIGNAL_SECONDS}", "requeue": True, **asked}
        flags = [
            f"--{key.replace('_', '-')}" + (f"={value}" if value is not True else "")
            for key, value in {**asked, "cpus_per_task": str(cpus)}.items()
        ]
        _called("sbatch", "--test-only", *flags, "--wrap=true")

    def submit(
        self, tasks: Sequence[Callable[[], None]], folder: Path, name: str, minutes: int, most: int
    ) -> list[str]:
        import submitit

        executor = submitit.SlurmExecutor(folder, max_num_timeout=ALWAYS)
        executor.update_parameters(
            job_name=name,
            time=minutes,
            cpus_per_task=self._cpus,
            array_parallelism=most,
            additional_parameters=self._asked,
            srun_args=[f"--cpus-per-task={self._cpus}"],  # which a step does not inherit
        )
        with _own_sbatch(submitit.SlurmExecutor), executor.batch():
            found = [executor.submit(task) for task in tasks]
        return [job.job_id for job in found]

    def active(self, ids: Iterable[str], folder: Path) -> Mapping[str, str] | None:
        del ids
        return _queued(f"{folder}/")

    def cancel(self, ids: Iterable[str]) -> None:
        arrays = sorted(set(map(job_of, ids)))
        if arrays:
            _called("scancel", *arrays)


class _Local:
    """`time`: minutes of a task; `signal`: how long before their end it is told."""

    asks_seconds = 0.5

    def __init__(self, parameters: Mapping[str, str | bool], workers: int) -> None:
        self.workers = workers
        for key in sorted(parameters.keys() - {"time", "signal"}):
            meant = nearest(key, ("time", "signal", "cpus_per_task"))
            raise UsageError(
                f"--slurm {key}: cluster=local knows time, signal and cpus_per_task alone",
                do=f"did you mean {meant}?"
                if meant
                else "leave it out, or leave out cluster=local",
            )
        try:
            self._minutes = float(parameters.get("time", "0"))
            self._before = int(str(parameters.get("signal", "USR2@30")).partition("@")[2])
        except ValueError:
            raise UsageError(
                "--slurm cluster=local takes time=MINUTES and signal=USR2@SECONDS"
            ) from None
        self._jobs: list[Any] = []

    def submit(
        self, tasks: Sequence[Callable[[], None]], folder: Path, name: str, minutes: int, most: int
    ) -> list[str]:
        import submitit

        del name, most
        executor = submitit.LocalExecutor(folder, max_num_timeout=ALWAYS)
        executor.update_parameters(
            timeout_min=self._minutes or minutes, signal_delay_s=self._before
        )
        with executor.batch():
            found = [executor.submit(task) for task in tasks]
        self._jobs += found  # whose processes would be asked to end where nothing holds them
        return [job.job_id for job in found]

    def active(self, ids: Iterable[str], folder: Path) -> Mapping[str, str]:
        return {each: "" for each in ids if str(folder).encode() in _command_line(each)}

    def cancel(self, ids: Iterable[str]) -> None:
        for each in ids:
            with suppress(OSError):
                os.kill(int(each), signal.SIGTERM)


def _command_line(process: str) -> bytes:
    """Nothing of one that has ended: another process may have its number."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def _queued(scripts: str) -> dict[str, str] | None:
    """Tasks whose script's path begins so, each with why it waits; None where nobody answers."""
    try:
        said = _called("squeue", "--me", "--noheader", "--array", "--format=%i|%r|%o")
    except (ClusterError, UsageError):
        return None
    jobs = [line.split("|", 2) for line in said.splitlines() if line.count("|") > 1]
    return {number: why for number, why, script in jobs if script.startswith(scripts)}


def gone(ids: Collection[str], folder: Path) -> set[str]:
    """Those tasks of a folder that neither SLURM nor this machine has any more; none where SLURM
    does not say."""
    queued = None
    with suppress(RunError):  # on this machine there is no squeue
        queued = _queued(f"{folder}/")
    running = {each for each in ids if str(folder).encode() in _command_line(each)}
    return set() if queued is None else {*ids} - queued.keys() - running


def _called(*command: str, submits: bool = False) -> str:
    """What a command of the scheduler says. Raises UsageError, ClusterError, and RunError for one
    that is not there."""
    pipe = subprocess.PIPE
    try:
        called = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    except OSError as error:
        raise RunError(f"{command[0]} cannot be started: {error.strerror}") from error
    with called:
        for seconds in (ANSWER_SECONDS, SUBMIT_SECONDS * submits):
            try:
                out, said = called.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                out, said = None, (error.stderr or b"").decode()
            if out is not None or "retrying" in said:
                break
        called.kill()  # unless it has ended
    if out is None:
        raise refused(f"{said}\n{command[0]} timed out")
    if called.returncode:
        raise refused(said)
    return out


def job_of(task: str) -> str:
    """The job whose task this is."""
    return task.partition("_")[0]


@contextmanager
def _own_sbatch(executor: Any) -> Iterator[None]:
    """submitit would wait for an sbatch that tries again, and print what it says. Of an array it
    makes an executor itself. One that does not answer, or not in time, may have submitted: each has
    a script of its own, by which the jobs are found."""
    make = executor._make_submission_command

    def submitted(*of: Any) -> list[str]:
        *sbatch, script = make(*of)
        try:
            said = _called(*sbatch, script, submits=True)
        except ClusterError:
            taken = _queued(script)
            if not taken:
                raise
            said = f"Submitted batch job {job_of(next(iter(taken)))}"
        return ["echo", said]

    executor._make_submission_command = submitted
    try:
        yield
    finally:
        executor._make_submission_command = make


def refused(said: str) -> UsageError | ClusterError:
    """What SLURM refuses a request with, as an error."""
    lines = [re.sub(r"^\w+: (error|fatal)?:? ?", "", line) for line in said.splitlines() if line]
    line = printable("; ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or "it says no reason")
    if "configuration source" in said:
        return ClusterError(
            f"this machine knows no SLURM cluster: {line}",
            do="start the sweep where sbatch works; --slurm cluster=local tries it on this machine",
        )
    if NOT_NOW.search(said) and not TOO_LARGE.search(said):
        return ClusterError(
            f"SLURM takes no jobs now: {line}",
            do="have fewer tasks (--workers N), ask for less with --slurm KEY=VALUE, or wait: the "
            "same command then goes on",
        )
    if "job array" in said:
        do = "have fewer tasks: --workers N, at most MaxArraySize in `scontrol show config`"
        return UsageError(f"SLURM refuses the jobs: {line}", do=do)
    return UsageError(
        f"SLURM refuses the jobs: {line}",
        do="ask for something else with --slurm KEY=VALUE, as partition, account, qos, time or "
        "gres; sinfo lists the partitions",
    )
