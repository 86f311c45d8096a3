"""What there is to diagnose: a function in a file of the user's, or a run folder of ours."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from bnbench.assemble import build_run, resolve_device
from bnbench.assemble.stored import training_batches, validation_batches
from bnbench.config import loading, plans
from bnbench.diagnosis.checkpoint import SavedModel, parse_checkpoint
from bnbench.diagnosis.foreign import described
from bnbench.errors import BnbenchError, StorageError, UsageError
from bnbench.probes.statistics import Autocast
from bnbench.store import RunFolder

RETURNS = "(model, loader) or (model, train_loader, eval_loader)"


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A model with its loaders. `checkpoint`: what it was loaded from, for a run folder."""

    model: nn.Module
    loader: Iterable[Any]
    eval_loader: Iterable[Any] | None
    checkpoint: SavedModel | None = None
    autocast: Autocast = nullcontext
    notes: list[str] = field(default_factory=list)


def find_target(target: str, device: str | None, images: int) -> Target:
    """The model and the loaders that TARGET names, the model on its device.

    Raises UsageError, ConfigError, DataError, StorageError.
    """
    path, separator, function = target.rpartition(":")
    if Path(target).is_dir():
        return _stored_run(Path(target), device, images)
    if not separator or not path.endswith(".py"):
        is_file = Path(target).is_file()
        do = (
            f"name the function, too: {target}:FUNCTION"
            if is_file
            else "give path/to/file.py:function, or the folder of a run"
        )
        raise UsageError(f"{target} is nothing that can be diagnosed", do=do)
    found = _called(Path(path), function)
    if device is not None:
        found.model.to(resolve_device(device))
    return found


# --- a function of the user's ---------------------------------------------------------------


def _called(path: Path, function: str) -> Target:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", do="TARGET is path/to/file.py:function")
    call = getattr(_imported(path), function, None)
    if call is None:
        raise UsageError(
            f"{path} defines no {function}", do=f"write a function that returns {RETURNS}"
        )
    if not callable(call):
        raise UsageError(
            f"{path}:{function} is {described(call)}", do=f"it must be a function → {RETURNS}"
        )
    with _sentences(path, f"{function}()"):
        returned = call()
    match returned:
        case [nn.Module() as model, loader]:
            loaders = (loader, None)
        case [nn.Module() as model, loader, eval_loader]:
            loaders = (loader, eval_loader)
        case _:
            raise UsageError(
                f"{path}:{function} returned {described(returned)}", do=f"expected {RETURNS}"
            )
    for each in loaders:
        if each is not None and not hasattr(each, "__iter__"):
            raise UsageError(
                f"{path}:{function} returned {described(each)} as a loader",
                do="expected something that yields batches (inputs, labels)",
            )
    return Target(model, *loaders)


def _imported(path: Path) -> ModuleType:
    """The file as a module; what it imports is found in its folder and in the working directory, as
    when Python runs it. DataLoader's workers find it by its name, too."""
    for folder in (str(Path.cwd()), str(path.resolve().parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    name = path.stem if path.stem not in sys.modules else f"bnbench_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _sentences(path, "importing it"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _sentences(path: Path, doing: str) -> Iterator[None]:
    """What the user's code raises becomes a sentence with its line; what it prints goes to
    standard error, for standard output is the diagnosis."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except BnbenchError:
        raise
    except (Exception, SystemExit) as error:
        file = path.resolve()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == file]
        if isinstance(error, SyntaxError) and error.filename == str(file):
            lines = [error.lineno]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(
            f"{where}: {doing} raised {type(error).__name__}: {message}",
            do="--debug shows the traceback",
        ) from error


# --- a stored run ----------------------------------------------------------------------------


def _stored_run(path: Path, device: str | None, images: int) -> Target:
    folder = RunFolder(path)
    if folder.config_text() is None:
        raise UsageError(
            f"{path} is not the folder of a run: it has no config.yaml",
            do="name one of the folders that bnbench status EXPERIMENT lists",
        )
    saved = folder.checkpoint()
    if saved is None:
        raise StorageError(
            f"{path} has no checkpoint yet", do="train it first: a checkpoint is its last state"
        )
    config = plans.expand(loading.load_experiment(path / "config.yaml")).only()
    run, facts = build_run(config, resolve_device(device or config.compute.device))
    checkpoint = parse_checkpoint(str(path / "checkpoint.pt"), saved.content)
    run.model.load_state_dict(checkpoint.state)
    step = checkpoint.content["run"]["step"]
    notes = [] if saved.warning is None else [saved.warning]
    notes.append(f"state after step {step:,} of {facts.total_steps:,}")
    validation = validation_batches(config, images) if config.data.validation_size else None
    return Target(
        model=run.model,
        loader=training_batches(config, run, facts.steps_per_epoch, images),
        eval_loader=validation,
        checkpoint=checkpoint,
        autocast=run.autocast,
        notes=notes,
    )
