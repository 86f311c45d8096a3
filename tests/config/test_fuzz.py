"""Whatever the file says: a plan, or a list of faults; never another exception."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from bnbench.config import loading
from tests.config.fuzzing import EVERYTHING, Case, cases, judge

FUZZ = settings(max_examples=120, suppress_health_check=list(HealthCheck))


def outcomes(examples: int) -> Counter[str]:
    """How many cases are valid and how many are refused."""
    counts: Counter[str] = Counter()

    @settings(FUZZ, max_examples=examples, phases=[Phase.generate])
    @given(case=cases())
    def draw(case: Case) -> None:
        counts[judge(case)] += 1

    draw()
    return counts


@FUZZ
@given(case=cases())
def test_any_configuration_is_valid_or_refused(case: Case) -> None:
    judge(case)


def test_cases_are_of_both_kinds() -> None:
    assert judge(Case(EVERYTHING.encode(), loading.Overrides())) == "valid"
    counts = outcomes(60)
    assert min(counts["valid"], counts["refused"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "bug"),
    [
        ("files", "_text", lambda value: value),  # text that is read back as something else
        ("identity", "folder_part", lambda *_: "../a"),  # folders that are called anything
        ("sentences", "nearest", lambda *_: [][0]),  # an exception that is not ours
        ("faults", "printable", lambda text: text),  # a terminal's escapes
    ],
)
def test_negative_control_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, bug: Any
) -> None:
    monkeypatch.setattr(importlib.import_module(f"bnbench.config.{module}"), name, bug)
    with pytest.raises(AssertionError):
        outcomes(300)


@pytest.mark.parametrize("items", [2_000, 20_000])
def test_a_long_list_of_wrong_items_costs_no_time(items: int) -> None:
    """Each would be told at each point of the grid, and compared with every other."""
    wrong = f"optim: {{schedule: step, milestones: {[2**63] * items}}}\n"
    text = EVERYTHING.replace("optim: {schedule: step, milestones: [0.2]}\n", wrong)
    took: list[float] = []
    assert judge(Case(text.encode(), loading.Overrides()), took=took.append) == "refused"
    assert took[0] < 2.0
