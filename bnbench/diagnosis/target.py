"""What there is to diagnose: a function in a file of the user's, a checkpoint, a run folder."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from bnbench.assemble import build_run, checkpoints, resolve_device
from bnbench.assemble.run import batches_of_stored
from bnbench.config import identity, loading
from bnbench.config.trust import Trust
from bnbench.diagnosis.diagnose import Examination
from bnbench.diagnosis.evidence import SavedModel, Target
from bnbench.diagnosis.foreign import described, in_a_sentence, plain
from bnbench.diagnosis.history import steps_in
from bnbench.diagnosis.result import Diagnosis, Loader, Score
from bnbench.errors import StorageError, UsageError
from bnbench.guard import ForeignCode, awaited, foreign_code
from bnbench.running_statistics import STATISTICS
from bnbench.store import RunFolder, files
from bnbench.store.run_folder import CHECKPOINT
from bnbench.wording import PATH_LENGTH, cut, shortened

RETURNS = "(model, loader), (model, train_loader, eval_loader), or a dict of 'model' and 'train'"

BATCHES = (Iterable, Dataset), "a loader", "something that yields batches (inputs, labels)"
CALLS = Callable, "", "forward(model, batch) → output, score(output, batch) → losses"
KNOWN = "live: the model whose weights were averaged; steps: of the optimizer"

GIVEN: Mapping[str, tuple[Any, str, str]] = {
    **dict.fromkeys(("train", "eval"), BATCHES),
    **dict.fromkeys(("forward", "score"), CALLS),
    "live": (nn.Module, "", KNOWN),
    "steps": (int, "", KNOWN),
}
"""What a dict that the function returns may hold beside the model: its class, what errors call it,
if not by its name, and what they say is expected."""

_of_the_model = foreign_code(in_a_sentence("the model", UsageError))


def find_target(
    target: str,
    device: str | None,
    images: int,
    trust: Trust,
    wait: Callable[[str], None] = lambda _: None,
) -> Target:
    """The model and the loaders that TARGET names, the model on its device. `wait` gets what is
    waited for, where the user's code takes its time.

    Raises UsageError, ConfigError, DataError, StorageError.
    """
    path, _, function = target.rpartition(":")
    if Path(target).is_dir():
        return _stored_run(Path(target), device, images, trust)
    if not path.endswith(".py"):
        do = "give path/to/file.py:function, or the folder of a run"
        if Path(target).is_file():
            do = f"name the function, too: {target}:FUNCTION"
        raise UsageError(f"{target} is nothing that can be diagnosed", do=do)
    if trust.no_custom:
        raise UsageError(f"{path} is code, which would be run", do="leave out --no-custom")
    if not Path(path).is_file():
        shown = shortened(str(path), PATH_LENGTH)
        raise UsageError(f"there is no file {shown}", do="TARGET is path/to/file.py:function")
    code = ForeignCode()
    fails = in_a_sentence(f"importing {path}", UsageError)
    with awaited(f"{path} to be imported", wait), code.entered(fails):
        module = _imported(Path(path))
    on = None if device is None else resolve_device(device)
    fails = in_a_sentence(f"{function}()", UsageError)
    with awaited(f"{path}:{function}()", wait), code.entered(fails):
        return _called(module, path, function, on, code)


def _called(
    module: ModuleType, path: str, function: str, device: torch.device | None, code: ForeignCode
) -> Target:
    """What the user's function returns."""
    call = getattr(module, function, None)
    if not callable(call):
        is_other = f"{path}:{function} is {described(call)}"
        raise UsageError(
            f"{path} defines no {function}" if call is None else is_other,
            do=f"write a function that returns {RETURNS}",
        )
    returned = call()
    given: dict[str, Any]
    match returned:
        case {"model": nn.Module(), "train": _} if set(returned) <= {"model", *GIVEN}:
            given = dict(returned)
        case [nn.Module(), _] | [nn.Module(), _, _]:
            given = dict(zip(("model", "train", "eval"), returned, strict=False))
        case _:
            raise UsageError(
                f"{path}:{function} returned {described(returned)}", do=f"expected {RETURNS}"
            )
    for name, (kind, named, expected) in GIVEN.items():
        value = given.get(name)
        if value is not None and not isinstance(value, kind):
            raise UsageError(
                f"{path}:{function} returned {described(value)} as {named or name}",
                do=f"expected {expected}",
            )
    if device is not None:
        given["model"].to(device)
    known: dict[str, Any] = {
        name: given.get(name) for name in ("forward", "score", "live", "steps")
    }
    return Target(given["model"], given["train"], given.get("eval"), code=code, **known)


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
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@_of_the_model
def _stored_run(path: Path, device: str | None, images: int, trust: Trust) -> Target:
    folder = RunFolder(path)
    if folder.config_text() is None:
        raise UsageError(
            f"{path} is not the folder of a run: it has no config.yaml",
            do="name one of the folders that bnbench status EXPERIMENT lists",
        )
    notes: list[str] = []
    saved = folder.checkpoint(notes.append)
    if saved is None:
        raise StorageError(
            f"{path} has no checkpoint yet", do="train it first: a checkpoint is its last state"
        )
    config = loading.load_run(path)
    trust.allow([config])
    name = str(path / CHECKPOINT)
    recorded = (folder.manifest_or_none() or {}).get("identity") or identity.identity(config)
    state = checkpoints.load_state(name, saved, recorded)
    trust.require_same(path, config, state["identity"])
    run, facts = build_run(config, resolve_device(device or config.compute.device))
    checkpoints.resume(run, name, state)
    notes.append(f"state after step {run.position.step:,} of {facts.total_steps:,}")
    training, validation = batches_of_stored(config, images)
    checkpoint = SavedModel(name, state, state["run"]["model"])
    return Target(
        run.model,
        training,
        validation or None,
        autocast=run.autocast,
        checkpoint=checkpoint,
        notes=notes,
    )


# --- checkpoints ------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> SavedModel:
    """The checkpoint in a file; only tensors and plain values are read. Raises StorageError."""
    if path.is_dir():
        raise StorageError(f"{path} is a folder", do="name a file in it with --checkpoint FILE")
    content = files.read(path, follow=True)
    if content is None:
        raise StorageError(f"{path}: no such file", do="name the checkpoint with --checkpoint FILE")
    return _saved(str(path), content)


def _saved(name: str, content: bytes) -> SavedModel:
    do = f"{checkpoints.SAVE}; or load it in your function, without --checkpoint"
    return SavedModel(name, *checkpoints.with_state_dict(name, content, do=do))


def load(target: Target, checkpoint: SavedModel) -> None:
    """Put it into the model, and note what it says of how that came to be."""
    target.lacking = put_into(target.model, checkpoint, target.notes)
    target.checkpoint = checkpoint
    target.averages = "AveragedModel" if checkpoints.AVERAGED in checkpoint.state else ""
    target.steps = target.steps or steps_in(checkpoint.content)


@_of_the_model
def put_into(
    model: nn.Module, checkpoint: SavedModel, notes: list[str] | None = None
) -> tuple[str, ...]:
    """Load it, whatever it was wrapped in; the layers whose running statistics it lacks, by name in
    the model. `notes` get what of it is not used. Raises UsageError, StorageError."""
    own, wrapper = checkpoints.bare(model.state_dict())
    saved, _, left = checkpoints.part_for(checkpoint.name, own, checkpoint.state, STATISTICS)
    if left and notes is not None:
        notes.append(left)
    wrong = checkpoints.other_names(saved, own, STATISTICS)
    if wrong := wrong or cut([*checkpoints.other_shapes(saved, own).values()], "; "):
        raise UsageError(
            f"{checkpoint.name} is of another model: {wrong}",
            do="build the model as it was trained",
        )
    model.load_state_dict({wrapper + key: value for key, value in saved.items()}, strict=False)
    lacking = [key.rpartition(".") for key in own if key not in saved]
    return tuple(dict.fromkeys(wrapper + layer for layer, _, part in lacking if part in STATISTICS))


@_of_the_model
def recalibrate(checkpoint: SavedModel, model: nn.Module, diagnosis: Diagnosis) -> bytes:
    """The same checkpoint with the population's statistics; nothing else in it changes."""
    # The diagnosis names layers as the model does.
    names, own = checkpoints.bare(plain(model).state_dict())
    saved, wrapper, _ = checkpoints.part_for(checkpoint.name, names, checkpoint.state, STATISTICS)
    named = {own + key: value for key, value in saved.items()}
    for key, value in diagnosis.recalibrated(named).items():
        checkpoint.state[wrapper + key.removeprefix(own)] = value
    buffer = io.BytesIO()
    torch.save(checkpoint.content, buffer)
    return buffer.getvalue()


def read_back(
    name: str, content: bytes, examined: Examination, model: nn.Module
) -> dict[Loader, Score]:
    """What the checkpoint in a file gives in eval mode, on the images that were looked at; the
    model has its weights from then on. Raises UsageError where it is worse than before."""
    put_into(model, _saved(name, content))
    return examined.again()


@_of_the_model
def of_model(model: nn.Module) -> SavedModel:
    """A checkpoint that is the model's own state dict."""
    state = {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}
    return SavedModel("the model", state, state)
