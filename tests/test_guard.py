"""Code of the user's own misbehaves in every way that is known; training, a sweep and a diagnosis
say so in a sentence, go on where they can, and find the process as it was."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import scipy.special  # noqa: F401  sets a filter of warnings when it is imported
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnbench import store
from bnbench.config import schema
from bnbench.errors import Interrupted, RunError
from bnbench.guard import ForeignCode, Raised, foreign_code, items
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder, RunFolder
from tests.commands import bnbench
from tests.foreign_code import DELETES, RAISED, SET, Way
from tests.processes import completed
from tests.runs import all_probes, evidence, small_config, write_experiment

BOTH = RAISED | SET
BLOCKS = {
    "norm": "{{kind: custom, target: {}.py:Layer}}",
    "model": "{{kind: custom, target: {}.py:Network}}",
}
"""Where the code stands in a configuration, with the name of its file."""


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(autouse=True)
def _modules_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "layer", raising=False)


def process() -> dict[str, Any]:
    """What code can set of this process."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "folder": Path.cwd(),
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "recursion": sys.getrecursionlimit(),
    }


def assert_a_sentence(text: str, way: Way, file: str = "layer") -> None:
    """One to three lines without what a terminal obeys, that name the user's line."""
    assert "Traceback" not in text
    assert "unexpected" not in text
    assert len(text) < 1000
    assert all(each.isprintable() for each in text.splitlines())
    assert all(part in text for part in way.said.split(": "))
    if way.said:
        assert f"{file}.py:" in text


OF_NETWORKS = ("another shape", "a tuple", "sys.exit(0)", "at import", "when made", "early")
"""Ways that are tried in a network, too: of a layer, `train` tries all."""


@pytest.mark.parametrize(
    ("block", "name"),
    [*(("norm", each) for each in BOTH), *(("model", each) for each in OF_NETWORKS)],
)
def test_train(block: str, name: str) -> None:
    way = BOTH[name]
    Path("layer.py").write_text(way.source)
    write_experiment(
        Path("study.yaml"), f"setups: {{a: {{{block}: {BLOCKS[block].format('layer')}}}}}\n"
    )
    before = process()
    code, _, err = bnbench("train", "study.yaml", "--quiet")
    assert process() == before
    if "train" not in way.fails:
        assert code == 0, err
        return
    lines = err.splitlines()[1:]  # after the one that names the code that is run
    assert 1 <= len(lines) <= 3
    assert_a_sentence("\n".join(lines), way)
    assert code == (2 if way.early else 1)
    for run in all_runs():
        assert store.read(run).state == "failed"


def write_sweep(ways: dict[str, Way], block: str = "norm") -> dict[str, Way]:
    """An experiment with a setup of each way, in that block, and last a good one; the ways by
    setup."""
    setups = {f"w{number:02}": way for number, way in enumerate(ways.values())}
    lines = ["setups:"]
    for name, way in setups.items():
        Path(f"{name}.py").write_text(way.source)
        lines.append(f"  {name}: {{{block}: {BLOCKS[block].format(name)}}}")
    write_experiment(Path("study.yaml"), "\n".join([*lines, "  good: {}\n"]))
    return setups


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_a_sweep_in_which_all_but_one_misbehave(block: str, alone: dict[str, Any]) -> None:
    setups = write_sweep({name: way for name, way in BOTH.items() if not way.early}, block)
    before = process()
    code, _, err = bnbench("sweep", "study.yaml", "--quiet")
    assert process() == before
    assert code == 1, err
    assert "Traceback" not in err
    assert "unexpected" not in err
    runs = {run.name.split("_")[0].split("-")[0]: run for run in all_runs()}
    assert evidence(runs.pop("good")) == alone
    for setup, way in setups.items():
        found = store.read(runs[setup])
        assert found.state == ("failed" if "train" in way.fails else "completed"), way
        if "train" in way.fails:
            assert_a_sentence(found.problem or "", way, setup)
    assert (
        f"{sum(bool(way.fails) for way in setups.values())} of {len(runs) + 1} runs failed" in err
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_a_sweep_in_which_none_can_begin(block: str) -> None:
    setups = write_sweep({name: way for name, way in BOTH.items() if way.early}, block)
    before = process()
    code, _, err = bnbench("sweep", "study.yaml", "--quiet")
    assert process() == before
    assert code == 2
    assert not all_runs()
    faults = [line for line in err.splitlines() if line.startswith("study.yaml:")]
    for line, (setup, way) in zip(faults, setups.items(), strict=True):
        assert_a_sentence(line, way, setup)


def test_a_sweep_whose_file_is_gone_at_its_end() -> None:
    write_sweep({"deletes": DELETES})
    code, _, err = bnbench("sweep", "study.yaml", "--quiet")
    assert (code, err.splitlines()[1]) == (4, f"there is no file {Path.cwd() / 'w00.py'}")
    assert [store.read(run).state for run in all_runs()] == ["completed"] * 2


def all_runs() -> list[RunFolder]:
    return ExperimentFolder(Path("runs/study")).runs()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the good setup leaves behind where there is no other."""
    path = tmp_path_factory.mktemp("alone")
    write_experiment(path / "study.yaml", "setups: {good: {}}\n")
    bnbench("train", str(path / "study.yaml"), "--runs-dir", str(path), "--quiet")
    (run,) = ExperimentFolder(path / "study").runs()
    return evidence(run)


@pytest.mark.parametrize("name", BOTH)
def test_diagnose(name: str) -> None:
    way = BOTH[name]
    Path("layer.py").write_text(way.source)
    before = process()
    drawn = torch.get_rng_state(), random.getstate()
    code, out, err = bnbench(
        "diagnose", "layer.py:make", "--images", "64", "--device", "cpu", "--quiet"
    )
    assert process() == before
    if "diagnose" not in way.fails:
        assert code == 0, err
        assert "population" in out
        assert drawn[1] == random.getstate()
        assert torch.equal(drawn[0], torch.get_rng_state())
        return
    assert code == 2
    assert_a_sentence(err, way)


NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, classes, make_norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 4, 3), make_norm(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        x = {standardized}
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
"""


@pytest.mark.slow
def test_a_network_that_changes_its_inputs_in_place_is_measured_as_another() -> None:
    found = []
    for standardized in ("(x - 0.5) / 2", "x.sub_(0.5).div_(2)"):
        Path("net.py").write_text(NETWORK.format(standardized=standardized))
        model = schema.CustomModel(kind="custom", target=f"{Path.cwd() / 'net.py'}:Net")
        config = small_config(model=model, probes=all_probes(every=16))
        done = execute(config, ExperimentFolder(Path("runs")), Settings())
        found.append(evidence(done.folder))
    assert found[0] == found[1]


# --- what cannot be seen from inside the process ------------------------------------------------


@pytest.mark.slow
def test_no_traceback_of_a_thread_or_of_a_deletion_and_a_closed_standard_error_says_all() -> None:
    way = Way(
        method="def __del__(self): raise Odd('deleted')",
        passed="t = threading.Thread(target=forever, args=(x,)); t.start(); t.join(); os.close(2)",
    )
    Path("layer.py").write_text(way.source)
    command = ("bnbench", "diagnose", "layer.py:make", "--images", "64")
    done = completed(sys.executable, "-m", *command)
    assert "population" in done.stdout
    assert "Traceback" not in done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warned == [
        "warning: layer.py:14: RecursionError: maximum recursion depth exceeded",
        "warning: layer.py:26: Odd: deleted",
    ]


# --- the guard itself ---------------------------------------------------------------------------

PARTS: dict[str, tuple[Any, Any]] = {
    "dtype": (torch.set_default_dtype, (torch.float32, torch.float64, torch.bfloat16)),
    "device": (torch.set_default_device, ("cpu", "meta")),
    "gradients": (torch.set_grad_enabled, (True, False)),
    "threads": (torch.set_num_threads, (1, 2)),
    "folder": (os.chdir, ("/", "/usr", "/etc")),
    "environment": (lambda value: os.environ.update(GUARD=value), ("a", "b")),
    "recursion": (sys.setrecursionlimit, (2_000, 3_000)),
}
Changes = st.lists(
    st.sampled_from(sorted(PARTS)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(PARTS[name][1]))
    ),
    max_size=5,
)


def set_all(settings: Sequence[tuple[str, Any]]) -> None:
    for name, value in settings:
        PARTS[name][0](value)


def test_modules_that_are_no_longer_imported_are_imported_again() -> None:
    def cleared() -> Any:
        sys.modules.clear()
        return sys.modules["json"]

    with foreign_code(lambda raised: RunError(str(raised))):
        before = dict(sys.modules)
        sys.modules.clear()
    assert all(sys.modules.get(name) is each for name, each in before.items())
    with pytest.raises(RunError, match="KeyError"), foreign_code(lambda each: RunError(str(each))):
        cleared()
    assert before.keys() <= sys.modules.keys()


@given(crossings=st.lists(st.tuples(Changes, Changes, st.booleans()), max_size=5))
def test_each_side_finds_the_process_as_it_has_left_it(
    crossings: Sequence[tuple[Sequence[tuple[str, Any]], Sequence[tuple[str, Any]], bool]],
) -> None:
    code = ForeignCode()
    with foreign_code(raised):  # for what this test itself sets
        left: dict[str, Any] = {}
        for theirs, ours, fails in crossings:
            set_all(ours)
            before = process()
            with suppress(RunError), code.entered(raised):
                found = process()
                set_all(theirs)
                now = process()
                if fails:
                    sys.exit(0)
            assert process() == before
            assert all(found[name] == value for name, value in left.items())
            left = {name: now[name] for name in now if now[name] != before[name]}


def raised(error: Raised) -> RunError:
    return RunError(str(error))


@given(text=st.text(), name=st.text(), lines=st.integers(0, 3))
def test_whatever_is_raised_is_one_line_that_can_be_printed(
    text: str, name: str, lines: int
) -> None:
    error = type(name.replace("\0", ""), (BaseException,), {})(f"{text}\n" * lines)
    said = str(Raised(error))
    assert said.isprintable()
    assert len(said) < 400
    error.__cause__ = error  # nor does a circle keep it
    assert str(Raised(error)) == said


def test_the_users_ctrl_c_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted), foreign_code(raised):
        raise Interrupted("stopped", exit_code=130)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), foreign_code(raised):
        raise KeyboardInterrupt


def test_items_are_taken_inside_and_used_outside() -> None:
    def source() -> Iterator[int]:
        for number in range(3):
            torch.set_num_threads(2)
            yield number
        raise GeneratorExit

    taken = items(source(), lambda: foreign_code(raised))
    for number in range(3):
        assert next(taken) == number
        assert torch.get_num_threads() == 1
    with pytest.raises(RunError, match=r"test_guard.py:\d+: GeneratorExit$"):
        next(taken)
    taken = items(source(), lambda: foreign_code(raised))
    next(taken)
    taken.close()  # what we raise there is no error of theirs
