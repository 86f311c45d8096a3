"""Where a run's numbers come from: versions, machine, fingerprint, commit, or another experiment.

Identical runs of several experiments are trained once, and taken over by the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

import bnbench
from bnbench import store
from bnbench.assemble import Facts
from bnbench.config import files, identity, loading, schema
from bnbench.errors import BnbenchError, ClusterError, StorageError
from bnbench.runner import views
from bnbench.runner.settings import Settings
from bnbench.store import Record, RunFolder


def fingerprint_of(device: torch.device, threads: int) -> Record:
    """What decides the bits of the result, apart from code and configuration."""
    return {
        "torch": str(torch.__version__),
        "device": device.type if device.type != "cuda" else torch.cuda.get_device_name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "memory_format": "channels_last",
    }


def environment() -> dict[str, str]:
    """What decides the bits of a result on this machine's processor: versions, bnbench's own files
    included, which a checkout may change within a version."""
    package = Path(bnbench.__file__).parent
    files = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        files.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return {
        "bnbench": bnbench.__version__,
        "code of bnbench": files.hexdigest()[:8],
        "torch": str(torch.__version__),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }


def first_environment(runs: Iterable[RunFolder]) -> dict[str, str]:
    """What the first of these runs that has begun was begun with, in the words of `environment`,
    as far as its manifest tells; nothing where none has begun."""
    for folder in runs:
        if (manifest := folder.manifest_or_none()) is not None:
            with suppress(KeyError, IndexError, TypeError):  # somebody else has written it
                first = manifest["fingerprints"][0]
                return {
                    "bnbench": str(manifest["versions"]["bnbench"]),
                    "torch": str(first["torch"]),
                    "CPU capability": str(first["cpu_capability"]),
                }
    return {}


def other_environment(first: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What of an environment is not as in the first; empty where nothing is."""
    return ", ".join(
        f"{name} {there[name]} instead of {before}"
        for name, before in first.items() if there.get(name, before) != before
    )  # fmt: skip


def require_first_environment(
    experiment: store.ExperimentFolder, name: str, settings: Settings
) -> None:
    """Refuse to train on a machine where the bits would not be those of the one that came first and
    has written this file, unless asked to; what a run is trained with is in its manifest.

    Raises ClusterError, StorageError.
    """
    there = environment()
    try:
        first = dict(json.loads(experiment.settled(name, json.dumps(there).encode())))
    except (ValueError, TypeError):
        path = experiment.path / name
        raise StorageError(f"{path}: names no environment", do="remove it") from None
    changed, node = other_environment(first, there), platform.node()
    if changed and settings.accept_changes:
        settings.announce(f"warning: {node} is another kind of machine: {changed}")
    elif changed:
        raise ClusterError(
            f"{node} is another kind of machine than this study was begun on: {changed}",
            do="train on machines of that kind, with the same packages, or go on with "
            "--accept-changes; the manifest of each run says what it was trained with",
        )


def require_same_fingerprint(
    folder: RunFolder, then: Record, now: Record, settings: Settings
) -> None:
    """Refuse to continue where the bits would not be those of one machine, unless asked to."""
    changed = "; ".join(
        f"{key}: {then.get(key)} then, {now[key]} now" for key in now if then.get(key) != now[key]
    )
    if changed and settings.accept_changes:
        settings.announce(f"warning: {folder.name} goes on under another {changed}")
    elif changed:
        raise StorageError(
            f"{folder.name} was begun under another {changed}",
            do="its numbers would not be those of one machine: start again with --restart, or go "
            "on with --accept-changes, which marks the run",
        )


def manifest_of(
    config: schema.RunConfig, folder: RunFolder, facts: Facts, fingerprint: Record, *, resumed: bool
) -> Record:
    """The content of `manifest.json`: what is trained, with what, since when."""
    before = (folder.manifest() or {}) if resumed else {}
    fingerprints = before.get("fingerprints", [])
    if fingerprint not in fingerprints:
        fingerprints = [*fingerprints, fingerprint]
    return {
        **_described(config, folder),
        "started": before.get("started", time.time()),
        "started_utc": before.get("started_utc", datetime.now(UTC).isoformat(timespec="seconds")),
        "attempts": before.get("attempts", 0) + 1,
        "process": os.getpid(),
        "command": ["bnbench", *sys.argv[1:]],
        "versions": _versions(),
        "git_commit": _git_commit(),
        "machine": platform.machine(),
        "fingerprints": fingerprints,
        **asdict(facts),
    }


def _described(config: schema.RunConfig, folder: RunFolder) -> Record:
    described: Record = {
        "run": folder.name,
        "identity": identity.identity(config),
        "experiment": config.experiment,
        "setup": config.setup,
        "cell": identity.cell(config),
        "point": identity.point(config),
        "seed": config.seed,
        "hparams": identity.hparams(config),
        "log_every": config.train.log_every,
        "probes": sorted(config.probes.chosen()),
    }
    if set(config.log) - set(schema.LOGGERS):
        # As long as there is a folder, also where an attempt has left nothing to go on from.
        before = (folder.manifest_or_none() or {}).get(views.LOGGED_AS)
        described[views.LOGGED_AS] = before or secrets.token_hex(8)
    return described


@cache
def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "numpy", "tensorboard")
    return {
        "bnbench": bnbench.__version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


@cache
def _git_commit() -> str | None:
    """The commit of bnbench's own checkout, with "-dirty" for changes; None without one."""
    root = Path(bnbench.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def take_over(
    config: schema.RunConfig, folder: RunFolder, settings: Settings, fingerprint: Record
) -> store.Result | None:
    """The result of the same run in another experiment of the settings, made this folder's own.

    The same: identity, fingerprint, and everything that decides when it was measured. None where
    there is no such run. Killed at any moment, the folder is one of a run that has just begun.
    """
    for sibling in settings.siblings:
        other = store.read(store.ExperimentFolder(sibling).run(identity.run_id(config)))
        source = other.folder
        try:
            manifest, result = other.manifest, other.result
            if result is None or manifest is None or source.path == folder.path:
                continue
            if manifest["fingerprints"] != [fingerprint]:
                continue
            theirs = loading.load_run(source.path)
            if identity.identity(theirs) != identity.identity(
                config
            ) or identity.recorded_differences(theirs, config):
                continue
            last = [event["event"] for event in source.records(without=("step", "eval"))][-1:]
            state = source.last_state()
        except (BnbenchError, KeyError):
            continue  # a damaged run is not taken over
        if state is None or last not in (["finished"], ["diverged"]):
            continue
        ours = manifest | _described(config, folder)
        ours["taken_over_from"] = f"{sibling.name}/{source.name}"
        folder.begin(config_text=files.dump(config), manifest=ours)
        folder.adopt(state)
        folder.finish(result)
        for view in views.of_log(config, folder, settings, resumed=False):
            view.close()
        settings.announce(f"{folder.name} is {sibling.name}/{source.name}: taken over")
        return result
    return None
