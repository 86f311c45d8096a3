"""What a file cannot decide even if every run succeeds: said before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bnbench.config import loading, plans
from bnbench.report.promise import shortfalls
from bnbench.stats.effect import effect
from bnbench.stats.verdict import judge

SETUPS = "setups: {bn: {}, none: {norm: {kind: none}}}\n"
CLAIM = "claims: [{id: a, says: b, metric: test/running/accuracy, better: bn, worse: none}]\n"
TUNED = SETUPS + "seeds: 6\ntune: {axis: optim.lr, by: val/accuracy}\n"


def claims(count: int, more: str = "") -> str:
    """That many claims, which differ in their names alone."""
    of_one = "says: b, metric: test/running/accuracy, better: bn, worse: none"
    items = [f"{{id: c{number}, {of_one}{more}}}" for number in range(count)]
    return f"claims: [{', '.join(items)}]\n"


def lacking(path: Path, text: str, *sets: str) -> list[tuple[str, str]]:
    """What is said of a file with this text."""
    file = path / "x.yaml"
    file.write_text(text)
    experiment = loading.load_experiment(file, loading.Overrides(set=sets))
    return shortfalls(experiment, plans.expand(experiment))


@pytest.mark.parametrize("direction", ["up", "two-sided"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_seeds_suffice_where_claims_are_supported_if_all_seeds_agree(
    tmp_path: Path, count: int, direction: str
) -> None:
    """The judge itself, given differences as clear as can be, decides."""
    for seeds in range(5, 12):
        text = SETUPS + claims(count, f", direction: {direction}") + f"seeds: {seeds}\n"
        clear = [1.0 + 0.001 * seed for seed in range(seeds)]
        effects = [effect(clear, smallest_effect=0.0, direction=direction)] * count  # type: ignore[arg-type]
        verdicts = judge([(each, ()) for each in effects])
        supported = {each.outcome for each in verdicts} == {"supported"}
        assert supported == (not lacking(tmp_path, text)), seeds


def test_too_few_seeds_say_how_many_are_needed_and_which_profile_has_them(tmp_path: Path) -> None:
    assert lacking(tmp_path, SETUPS + "seeds: 2\n") == [
        ("2 seeds: 6 are needed for a verdict", "write seeds: 6")
    ]
    text = SETUPS + claims(5) + "profiles: {quick: {seeds: 6}, full: {seeds: 8}}\n"
    assert lacking(tmp_path, text) == [
        (
            "6 seeds cannot decide 5 claims after the correction for their number: 7 are needed",
            "write seeds: 7, or take --set profile=full",
        )
    ]
    assert lacking(tmp_path, text, "profile=full") == []


def test_one_side_at_an_end_of_two_values_may_still_decide(tmp_path: Path) -> None:
    """A better one beyond it could only add to the effect of what is tuned by."""
    alone = CLAIM.replace(", worse: none", ", smallest_effect: 30")
    axes = "axes: {optim.lr: [0.1, 0.01]}\n"
    assert lacking(tmp_path, TUNED + axes + alone) == []
    another = alone.replace("test/running/accuracy", "test/batch/accuracy")
    assert len(lacking(tmp_path, TUNED + axes + another)) == 1


def test_one_cell_compares_nothing(tmp_path: Path) -> None:
    assert lacking(tmp_path, "") == lacking(tmp_path, "seeds: 3\n") == []


@pytest.mark.parametrize(
    ("text", "what", "do"),
    [
        (
            TUNED + "axes: {optim.lr: [0.1, 0.01]}\n" + CLAIM,
            "claim a cannot be decided: bn is tuned over 0.1 and 0.01, and an end of the grid "
            "proves no optimum",
            "give optim.lr 3 values or more, or one",
        ),
        (
            TUNED.replace("bn: {}", "bn: {axes: {optim.lr: [0.1, 0.2, 0.3, 0.4]}}")
            + "axes: {optim.lr: [0.1, 0.2, 0.3]}\n"
            + CLAIM,
            "claim a cannot be decided: unequal trials to choose optim.lr from (bn: 4, none: 3)",
            "give each setup as many values of optim.lr",
        ),
        (
            SETUPS
            + "seeds: 6\naxes: {optim.lr: [0.1]}\n"
            + CLAIM.replace("test/running/accuracy", "usable_lr_max, target: 0.5"),
            "claim a cannot be decided: bn has one value of optim.lr, and usable_lr_max is taken "
            "over several",
            "give optim.lr several values",
        ),
        (
            SETUPS
            + "seeds: 6\ntrain: {evaluations: 1}\n"
            + CLAIM.replace("test/running/accuracy", "val/running/examples_to_target, target: 0.5"),
            "claim a cannot be decided: the target must be reached at two evaluations in a row, "
            "and there is one",
            "write train: {evaluations: 10}",
        ),
        (
            SETUPS
            + "seeds: 6\n"
            + CLAIM.replace("test/running/accuracy", "probe/batch_noise/noise"),
            "claim a cannot be decided: bn does not measure batch_noise",
            "write probes: {batch_noise: true}",
        ),
        (
            SETUPS + "seeds: 6\naxes: {optim.lr: [0.1, 0.2]}\n" + CLAIM,
            "claim a cannot be judged: bn has several values of optim.lr: name one, with @ or at:",
            "name other setups or values in it",
        ),
    ],
)
def test_a_claim_that_no_result_can_decide_is_named(
    tmp_path: Path, text: str, what: str, do: str
) -> None:
    assert (what, do) in lacking(tmp_path, text)
    good = text.replace("[0.1, 0.01]", "[0.1, 0.01, 1.0]").replace(", 0.4]", "]")
    good = good.replace("evaluations: 1}", "evaluations: 2}")
    good = good.replace("seeds: 6\nclaims", "seeds: 6\nprobes: {batch_noise: true}\nclaims")
    if good != text:
        assert lacking(tmp_path, good) == []


def test_an_arm_that_names_its_rate_is_not_tuned(tmp_path: Path) -> None:
    text = TUNED + "axes: {optim.lr: [0.1, 0.01]}\n" + CLAIM.replace("better: bn", "better: bn")
    fixed = text.replace("bn, worse: none", "bn@optim.lr=0.1, worse: none@optim.lr=0.1")
    assert lacking(tmp_path, text)
    assert lacking(tmp_path, fixed) == []


def test_words_that_are_tuned_have_no_ends(tmp_path: Path) -> None:
    text = TUNED.replace("optim.lr", "data.inputs") + "axes: {data.inputs: [unit, standardized]}\n"
    assert lacking(tmp_path, text + CLAIM) == []


def test_the_study_of_the_readme_can_decide_its_claim(tmp_path: Path) -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    (text,) = re.findall(r"```yaml\n(# my-study\.yaml.*?)```", readme.read_text(), re.S)
    assert lacking(tmp_path, text) == []
