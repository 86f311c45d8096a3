"""Checkpoints of someone else in a run's folder: refused with what to do, and nothing is run."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnbench.assemble import checkpoints
from bnbench.config import identity
from bnbench.errors import StorageError
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder, RunFolder
from tests.injection import Killed, dying
from tests.runs import experiment_in, run_state, small_config
from tests.stub import build_stub

CONFIG = small_config()
AGAIN = "put the run's own back, or train it again with --restart"


class Evil:
    """Runs a command where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def interrupted(path: Path, seed: int = 0) -> RunFolder:
    """A run with a checkpoint in the middle of it."""
    config, experiment = small_config(seed=seed), experiment_in(path)
    with pytest.raises(Killed):
        execute(config, experiment, Settings(), dying(build_stub, 8))
    return experiment.run(identity.run_id(config))


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def refusal(folder: RunFolder, content: bytes) -> StorageError:
    """What going on from this checkpoint, sealed as ours are, is answered."""
    folder.commit(content)
    (folder.path / "checkpoint.prev.pt").unlink(missing_ok=True)
    with pytest.raises(StorageError) as refused:
        execute(CONFIG, ExperimentFolder(folder.path.parent), Settings(), build_stub)
    assert refused.value.exit_code == 4
    assert refused.value.do == AGAIN
    said = str(refused.value)
    assert "weights_only" not in said
    assert len(said.splitlines()) <= 3
    return refused.value


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    ours, theirs = interrupted(tmp_path), interrupted(tmp_path, seed=1)
    found = theirs.checkpoint()
    assert found is not None
    said = refusal(ours, found)
    assert said.what == f"{ours.path / 'checkpoint.pt'} is the checkpoint of another run"
    assert run_state(theirs)["identity"] != identity.identity(CONFIG)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a checkpoint of PyTorch, or damaged"),
        (b"to be or not to be\n", "is not a checkpoint of PyTorch, or damaged"),
        (pickle.dumps({"a": 1}), "is not a checkpoint of PyTorch, or damaged"),
        (saved([1, 2]), "is not a checkpoint of a run"),
        (saved({"weight": torch.ones(2)}), "is not a checkpoint of a run"),
        (saved({"run": {}, "identity": 7}), "is not a checkpoint of a run"),
    ],
)
def test_what_is_no_checkpoint_of_a_run_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    folder = interrupted(tmp_path)
    assert f"{folder.path / 'checkpoint.pt'} {sentence}" in refusal(folder, content).what


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    folder, pwned = interrupted(tmp_path), tmp_path / "pwned"
    for content in (saved(Evil(pwned)), pickle.dumps(Evil(pwned))):
        refusal(folder, content)
    said = refusal(folder, saved(Evil(pwned))).what
    assert "holds more than tensors (posix.system)" in said
    state = run_state(interrupted(tmp_path / "other"))
    state["run"]["probes"] = Evil(pwned)
    refusal(folder, saved(state))
    assert not pwned.exists()
    torch.load(io.BytesIO(saved(Evil(pwned))), weights_only=False)
    assert pwned.exists(), "negative control: without care it would run"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a state that is no mapping or list, and of these."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))


OTHERS: tuple[Any, ...] = (
    None, "text", -1, 10**30, float("nan"), [], {}, [[1]], {"a": 1}, torch.ones(3, 5, 7),
    torch.ones(2, dtype=torch.complex64), torch.empty(2, device="meta"), torch.tensor(3),
    torch.eye(3).to_sparse(), (1, 2),
)  # fmt: skip


@given(data=st.data())
@settings(max_examples=60)
def test_any_value_of_another_kind_is_refused_or_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever stands in a checkpoint of the right run: a StorageError, or the run is ready."""
    global _state
    if _state is None:
        _state = saved(run_state(interrupted(tmp_path_factory.mktemp("state"))))
    state = torch.load(io.BytesIO(_state), weights_only=True)
    path = data.draw(st.sampled_from(list(leaves(state))))
    *outer, last = path
    place = state
    for key in outer:
        place = place[key]
    if data.draw(st.booleans()):
        place[last] = data.draw(st.sampled_from(OTHERS))
    else:
        del place[last]
    run, _ = build_stub(CONFIG, torch.device("cpu"))
    try:
        found = checkpoints.load_state("c.pt", saved(state), identity.identity(CONFIG))
        checkpoints.resume(run, "c.pt", found)
    except StorageError as error:
        assert error.do == AGAIN  # noqa: PT017 - it need not be raised
    else:
        assert 0 <= run.position.step <= run.total_steps


_state: bytes | None = None
