"""`bnbench diagnose` as its users type it, on files of theirs and on runs of ours."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bnbench import cli
from bnbench.diagnosis import diagnose
from tests.commands import bnbench
from tests.diagnosis.patients import loader, network, pictures, steps, trained
from tests.processes import completed

ROOT = Path(__file__).resolve().parents[2]

MINE = """
import sys
sys.path.insert(0, {root!r})
from tests.diagnosis.patients import *

print("I am talking")

def make():
    print("and talking")
    return network(), loader(count=1024), eval_loader()

def alone():
    return trained(), loader(count=256)

def with_two():
    return nn.Linear(2, 2), [], [], []

def only_model():
    return network()

def loader_is_int():
    return network(), 3

def raises():
    number = 1
    return number / 0

def leaves():
    sys.exit("no data")

value = 3

def regression():
    model = trained()
    model[-1] = nn.Linear(512, 1)
    x, *_ = pictures()
    batches = [dict(pixels=part, mean=part.mean((1, 2, 3))) for part in x[:256].split(64)]
    return {{
        "model": model,
        "train": batches,
        "forward": lambda model, batch: model(batch["pixels"])[:, 0],
        "score": lambda output, batch: (output - batch["mean"]).square(),
    }}

def other_name():
    return {{"model": trained(), "loader": []}}

def no_function():
    return {{"model": trained(), "train": [], "score": 3}}
"""


@pytest.fixture(autouse=True)
def _a_file_of_the_users(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "theirs", "plain", "broken", "lacking"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (own_folder / "mine.py").write_text(MINE.format(root=str(ROOT)))


@pytest.mark.slow
def test_a_file_of_the_users_own_from_a_shell(tmp_path: Path) -> None:
    torch.save({"model": steps(network(), 10).state_dict()}, tmp_path / "saved.pt")
    done = completed(
        *(sys.executable, "-m", "bnbench", "diagnose", "mine.py:make", "--images", "512"),
        *("--checkpoint", "saved.pt", "--fix", "fixed.pt"),
    )
    assert "1. stale: it costs accuracy or loss here" in done.stdout
    assert "\n   where: every layer\n" in done.stdout
    assert "after 10 updates" in " ".join(done.stdout.split()).lower()
    assert "fixed.pt: the checkpoint with recalibrated statistics" in done.stdout
    assert "talking" not in done.stdout
    assert "talking" in done.stderr
    assert max(map(len, done.stdout.splitlines()[:-3])) <= 80
    fixed = torch.load(tmp_path / "fixed.pt", weights_only=True)["model"]
    before = torch.load(tmp_path / "saved.pt", weights_only=True)["model"]
    changed = {key for key in before if not torch.equal(before[key], fixed[key])}
    assert changed == {f"{n}.{part}" for n in (1, 4, 7) for part in ("running_mean", "running_var")}


def test_a_healthy_network_is_said_to_be_one() -> None:
    said = bnbench("diagnose", "mine.py:alone", "--images", "256")
    assert said.code == 0
    assert "nothing is wrong: " in said.out
    assert "note: one loader only" in said.out


def test_the_same_as_a_page(tmp_path: Path) -> None:
    said = bnbench("diagnose", "mine.py:alone", "--images", "256")
    assert "--html FILE" in said.err.splitlines()[-1]
    said = bnbench("diagnose", "mine.py:alone", "--images", "256", "--html", "page.html")
    assert said.code == 0
    assert said.out.splitlines()[-1] == "page: page.html"
    assert "--html" not in said.err
    page = (tmp_path / "page.html").read_text()
    assert "bnbench diagnose: mine.py:alone" in page
    assert "nothing is wrong: " in page


def test_from_python_a_diagnosis_prints_as_in_the_terminal() -> None:
    found = diagnose(trained(), loader(count=256), images=256)
    said = bnbench("diagnose", "mine.py:alone", "--images", "256").out
    assert str(found).split() == said.split()
    assert max(map(len, str(found).splitlines())) <= 80


def test_what_the_function_returns_says_how_a_batch_goes_and_what_it_costs() -> None:
    said = bnbench("diagnose", "mine.py:regression", "--images", "256")
    assert said.code == 0
    assert "loss: as score() gives it;" in said.out
    assert "right" not in said.out.split("layer")[0]


def test_for_programs() -> None:
    said = bnbench("diagnose", "mine.py:make", "--images", "256", "--json", "--batch-sizes", "8,32")
    assert said.code == 0
    record = json.loads(said.out)
    # An untrained network: that comes first.
    assert [each["name"] for each in record["findings"]][:2] == ["at-chance", "never-updated"]
    assert {each["batch_size"] for each in record["readings"]} == {None, 8, 32, 64}
    assert [each["name"] for each in record["layers"]] == ["1", "4", "7"]
    assert record["images"] == {"train": 256, "eval": 400}


ERRORS: dict[str, tuple[list[str], int, str]] = {
    "no target": (["nothing"], 2, "nothing is nothing that can be diagnosed"),
    "no function": (["mine.py"], 2, "name the function, too: mine.py:FUNCTION"),
    "no file": (["none.py:make"], 2, "there is no file none.py"),
    "another function": (["mine.py:other"], 2, "mine.py defines no other"),
    "no function but a number": (["mine.py:value"], 2, "is an object of type int"),
    "four things": (["mine.py:with_two"], 2, "returned a tuple of Linear, list, list, list"),
    "one thing": (["mine.py:only_model"], 2, "returned an object of type Sequential"),
    "no loader": (["mine.py:loader_is_int"], 2, "returned an object of type int as a loader"),
    "another key": (["mine.py:other_name"], 2, "returned a dict with 'model', 'loader'"),
    "no function to score": (["mine.py:no_function"], 2, "an object of type int as score"),
    "raises": (["mine.py:raises"], 2, "mine.py:26: raises() raised ZeroDivisionError: division"),
    "exits": (["mine.py:leaves"], 2, "leaves() raised SystemExit: no data"),
    "no checkpoint": (["mine.py:make", "--checkpoint", "no.pt"], 4, "no.pt: no such file"),
    "fix in no folder": (["mine.py:make", "--fix", "no/x.pt"], 2, "there is no folder no"),
    "page is there": (["mine.py:make", "--html", "mine.py"], 2, "mine.py already exists"),
    "page in no folder": (["mine.py:make", "--html", "no/x"], 2, "there is no folder no"),
    "fix is there": (["mine.py:make", "--fix", "mine.py"], 2, "mine.py already exists"),
    "sizes": (
        ["mine.py:make", "--batch-sizes", "1,x"],
        2,
        "--batch-sizes 1,x: batch sizes are whole numbers from 2",
    ),
    "device": (["mine.py:alone", "--device", "cuda:99"], 2, "there is no device cuda:99"),
    "syntax": (["broken.py:make"], 2, "broken.py:2: importing broken.py raised SyntaxError: "),
    "import": (
        ["lacking.py:make"],
        2,
        "lacking.py:1: importing lacking.py raised ModuleNotFoundError: ",
    ),
    "an empty folder": (["."], 2, ". is not the folder of a run: it has no config.yaml"),
}


def test_a_batch_of_one_is_refused_before_anything_is_loaded() -> None:
    said = bnbench("diagnose", "mine.py:make", "--batch-sizes", "8,1")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("--batch-sizes 8,1: batch sizes are whole numbers from 2\n"), said


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_sentences(case: str) -> None:
    Path("broken.py").write_text("def make():\n    return (\n")
    Path("lacking.py").write_text("import no_such_library_anywhere\n")
    arguments, code, sentence = ERRORS[case]
    said = bnbench("diagnose", *arguments)
    assert said.code == code, said
    assert said.out == ""
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert (
        len(said.err.replace("I am talking\n", "").replace("and talking\n", "").splitlines()) <= 3
    )


def test_debug_shows_the_users_traceback() -> None:
    assert (
        "see its traceback (bnbench diagnose: add --debug)\n"
        in bnbench("diagnose", "mine.py:raises").err
    )
    result = CliRunner().invoke(cli.app, ["diagnose", "mine.py:raises", "--debug"])
    assert result.exception is not None
    assert isinstance(result.exception.__cause__, ZeroDivisionError)


def test_a_disk_that_is_full_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = bnbench("diagnose", "mine.py:alone", "--images", "256", "--fix", "fixed.pt")
    assert said.code == 4
    assert "no space left" in said.err
    assert not (tmp_path / "fixed.pt").exists()


def test_nothing_to_recalibrate() -> None:
    Path("plain.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef make():\n"
        "    data = [(torch.randn(8, 3), torch.arange(8) % 2) for _ in range(4)]\n"
        "    return nn.Linear(3, 2), data\n"
    )
    said = bnbench("diagnose", "plain.py:make")
    assert said.code == 0
    assert "no layer depends on batch statistics" in " ".join(said.out.split())
    said = bnbench("diagnose", "plain.py:make", "--fix", "fixed.pt")
    assert said.code == 2
    assert "there are no statistics to recalibrate" in said.err


@pytest.mark.slow
def test_importing_the_package_needs_no_torch() -> None:
    code = (
        "import sys, bnbench\nassert 'torch' not in sys.modules\n"
        "try: bnbench.diagnos\nexcept AttributeError as error: print(error)\n"
        "bnbench.diagnose\nimport bnbench.diagnosis\n"
        "assert bnbench.diagnose is bnbench.diagnosis.diagnose\n"
    )
    said = completed(sys.executable, "-c", code).stdout
    assert said == "module 'bnbench' has no attribute 'diagnos'\n"


THEIRS = """
import sys
sys.path.insert(0, {root!r})
from tests.diagnosis.patients import *

class StaysInEvalMode(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)

def on_running_statistics():
    model = network(norm=StaysInEvalMode)
    for each in norms(model).values():
        statistics(each)[0].fill_(0.1)
        statistics(each)[1].fill_(0.25)
    return steps(model, 100, lr=0.02), loader(count=512), eval_loader()

def with_wide_statistics():
    model = trained()
    for each in norms(model).values():
        statistics(each)[1].mul_(30)
    return model, loader(count=512)
"""


def test_what_is_advised_against_is_not_written(tmp_path: Path) -> None:
    """The network was trained on its running statistics."""
    Path("theirs.py").write_text(THEIRS.format(root=str(ROOT)))
    arguments = ("theirs.py:on_running_statistics", "--fix", "fixed.pt", "--html", "page.html")
    said = bnbench("diagnose", *arguments)
    assert said.code == 2
    assert "Do not recalibrate" in " ".join(said.out.split())
    assert "fixed.pt is not written: with recalibrated statistics the model is worse" in said.err
    assert not (tmp_path / "fixed.pt").exists()
    assert "fixed checkpoint" not in (tmp_path / "page.html").read_text()


def test_what_is_said_of_the_fixed_file_is_read_back_from_it(tmp_path: Path) -> None:
    """Rounded to the number format that the file has: what was put in while measuring is not."""
    Path("theirs.py").write_text(THEIRS.format(root=str(ROOT)))
    model = trained()
    torch.save({name: each.half() for name, each in model.state_dict().items()}, "half.pt")
    arguments = ("diagnose", "theirs.py:with_wide_statistics", "--checkpoint", "half.pt")
    said = bnbench(*arguments, "--images", "512", "--fix", "fixed.pt", "--html", "page.html")
    assert said.code == 0, said
    state = torch.load(tmp_path / "fixed.pt", weights_only=True)
    model.load_state_dict(state)
    x, y, *_ = pictures()
    with torch.no_grad():
        logits = model.eval()(x[:512])
    loss = torch.nn.functional.cross_entropy(logits, y[:512]).item()
    assert f"→ {(logits.argmax(1) == y[:512]).double().mean():.1%}".replace("%", " %") in said.out
    assert said.out.rstrip().endswith(f"→ {loss:.3f}\npage: page.html")
    row = f"running, in the fixed checkpoint</th><td></td><td>{loss:.3f}</td>"
    assert row in (tmp_path / "page.html").read_text()


def test_a_file_that_makes_it_worse_is_not_written(tmp_path: Path) -> None:
    """Statistics that the file's number format cannot hold."""
    Path("theirs.py").write_text(THEIRS.format(root=str(ROOT)))
    state = dict(trained().state_dict())
    state["4.running_var"] = torch.ones(16, dtype=torch.uint8)
    torch.save(state, "coarse.pt")
    arguments = ("diagnose", "theirs.py:with_wide_statistics", "--checkpoint", "coarse.pt")
    said = bnbench(*arguments, "--images", "512", "--fix", "fixed.pt")
    assert said.code == 2
    assert "read back, the model is worse on the train loader's images" in said.err
    assert not (tmp_path / "fixed.pt").exists()
