"""What holds of any network and any fault, measured with torch alone."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import bnbench
from tests.diagnosis.planted import Moves, patient
from tests.diagnosis.truth import read, resized, worse
from tests.diagnosis.zoo import Case

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 320

QUICK = (9, 10, 25, 28, 33, 34)
"""Of most kinds of faults, and quick."""

SLOW = sorted({*range(100)} - {*QUICK})
SEEDS = [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in SLOW)]


def harmful(case: Case) -> bool:
    """Whether the modes differ, clearly, on the training loader's batches, or on evaluation images
    in random batches of that size."""
    size = len(case.train[0][0])
    for given in (case.train, resized(case.evaluation, size)):
        running = read(case.model, given, "eval")
        try:
            if any(
                worse(running, read(case.model, given, mode), 1.2)
                for mode in ("train", "statistics")
            ):
                return True
        except ValueError:  # one value per channel: training would raise
            assert size == 1
    return False


FILE = """
import sys
sys.path.insert(0, {root!r})
from tests.diagnosis.planted import patient

def make():
    case = patient({seed}, images={images})
    return {{"model": case.model, "train": case.train, "eval": case.evaluation}}
"""
FIXED = re.compile(r"(training|evaluation) images, in eval mode: .*→ (.+) % right, loss .* → (.+)")


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("seed", SEEDS)
def test_harm_is_said_and_what_fix_writes_is_never_worse(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it written where that is advised against; what is said of it is what it gives."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "case", raising=False)
    Path("case.py").write_text(FILE.format(root=str(ROOT), seed=seed, images=IMAGES))
    said = bnbench("diagnose", "case.py:make", "--images", str(IMAGES), "--json", "--fix", "new.pt")
    case = patient(seed, images=IMAGES)
    found = json.loads(said.out)
    if harmful(patient(seed, images=IMAGES)):
        assert any(each["harmful"] for each in found["findings"]), case.says
    against = [each["do"] for each in found["findings"]] + found["notes"]
    if not Path("new.pt").exists():
        assert said.code == 2, (case.says, said.err)
        return
    assert said.code == 0, (case.says, said.err)
    assert not any("do not recalibrate" in each.lower() for each in against), (case.says, against)
    state = torch.load("new.pt", weights_only=True)
    for key, value in case.model.state_dict().items():
        if not key.endswith(("running_mean", "running_var")):
            assert torch.equal(state[key], value), key
    fixed = copy.deepcopy(case.model)
    fixed.load_state_dict(state)
    figures = {loader: (right, loss) for loader, right, loss in FIXED.findall(said.err)}
    for loader, given in (("training", case.train), ("evaluation", case.evaluation)):
        before, after = (read(model, given, "eval") for model in (case.model, fixed))
        assert not worse(after, before, 1.0), (case.says, loader)
        if not any(isinstance(module, Moves) for module in fixed.modules()):
            expected = f"{100 * after[1].mean():.1f}", f"{after[0].mean():.3f}"
            assert figures[loader] == expected, (case.says, loader)
