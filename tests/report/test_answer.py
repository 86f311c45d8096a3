"""The answer without claims: along the axes, setup by setup, with invented numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy.stats import t as student

from bnbench.config import schema
from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from bnbench.report.record import as_record
from bnbench.store import Record
from tests.report.invented import Told, invented
from tests.runs import SMALL_YAML

SETUPS = "setups: {bn: {norm: {kind: batch}}, gn: {norm: {kind: group, groups: 2}}}\n"
ALONE = (
    "; for statistics alone, put norm.batch_size in the axes (`bnbench explain norm.batch_size`)."
)
SIZES = "axes: {data.batch_size: [2, 8, 16]}\n"
BN = {16: 0.643, 8: 0.6, 2: 0.544}
GN = {16: 0.542, 8: 0.58, 2: 0.614}
NOISE = (0.0, 0.01, -0.006, 0.004, -0.002, 0.008, -0.003, 0.005)


def well(config: schema.RunConfig) -> Told:
    """BatchNorm loses with small batches and GroupNorm gains; a seed is a little off, and the two
    are so in opposite directions."""
    size = config.data.batch_size
    off = NOISE[config.seed] * (1 if config.setup == "bn" else -1)
    value = (BN if config.setup == "bn" else GN)[size] + off
    gap = {16: 0.004, 8: 0.004, 2: 0.135}[size] if config.setup == "bn" else 0.0
    return Told(curve=(value,), test=value, gap=gap)


def answered(
    path: Path,
    text: str,
    tell: Callable[[schema.RunConfig], Told | None] = well,
    head: str = SETUPS,
) -> Record:
    """The record of a study of these numbers."""
    study = read_study(invented(path, SMALL_YAML + head + text, tell))
    return as_record(study, judged(study), [], written=datetime(2026, 1, 2, tzinfo=UTC))


def needed(differences: list[float], effect: float) -> int:
    """The smallest n ≥ ((t₀.₉₇₅ + t₀.₈)·s/effect)², by trying each."""
    return next(
        n
        for n in count(2)
        if n >= (sum(student.ppf((0.975, 0.8), n - 1)) * stdev(differences) / effect) ** 2
    )


def notices(record: Record) -> list[str]:
    """Their texts."""
    return [each["text"] for each in record["notices"]]


def points(value: float) -> str:
    """As the report writes a difference."""
    return f"{value:+.1f}".replace("-", "−")


def test_nothing_is_chosen_over_an_axis_that_is_not_tuned(tmp_path: Path) -> None:
    path, best, small, *_ = answered(tmp_path, f"{SIZES}seeds: 1\n")["answer"]
    assert path == (
        "Test accuracy in %, batch size 16 → 8 → 2: bn 64.3 → 60.0 → 54.4; gn 54.2 → 58.0 → 61.4."
    )
    assert best == (
        "At batch size 16 bn did best: 64.3 % test accuracy (1 seed), +10.1 points over gn at the "
        "one seed: a direction, no more; 6 seeds are needed to decide it."
    )
    assert small.startswith("At batch size 2 gn did best: 61.4 % test accuracy (1 seed), +7.0 po")


def test_two_seeds_are_told_with_their_values(tmp_path: Path) -> None:
    answer = answered(tmp_path, f"{SIZES}seeds: 2\n")["answer"]
    assert "bn 64.3/65.3 → 60.0/61.0 → 54.4/55.4" in answer[0]
    assert (
        "+10.1 and +12.1 points over gn at the same seeds: a direction, no more; 6 seeds"
        in answer[1]
    )
    assert not [sentence for sentence in answer if "95 %" in sentence]


def test_two_seeds_that_disagree_have_no_direction(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        return Told(test=0.5 + (0.1 - 0.11 * config.seed) * (config.setup == "bn"))

    (answer,) = answered(tmp_path, "seeds: 2\n", tell)["answer"]
    assert "+10.0 and −1.0 points over gn at the same seeds: they disagree; 6 seeds" in answer


def test_three_seeds_have_intervals(tmp_path: Path) -> None:
    answer = answered(tmp_path, f"{SIZES}seeds: 3\n")["answer"]
    assert "bn 64.4 → 60.1 → 54.5; gn 54.1 → 57.9 → 61.3" in answer[0]
    # The same noise at both ends: each seed loses 9.9 points, so that no seed is off.
    assert answer[1] == (
        "Change from 16 to 2 at the same seeds [95 % interval]: bn −9.9 points [−9.9 … −9.9]; "
        "gn +7.2 points [+7.2 … +7.2]."
    )
    lead = [100 * (0.614 - 0.544 - 2 * off) for off in NOISE[:3]]
    half = 4.302653 * stdev(lead) / math.sqrt(3)
    middle = fmean(lead)
    told = f"{points(middle)} points over bn (95 % interval {points(middle - half)} … "
    assert f"{told}{points(middle + half)}, 3 seeds): indicative, 6 seeds are needed" in answer[3]


def test_what_is_not_decided_says_its_direction_and_the_seeds_it_needs(tmp_path: Path) -> None:
    def alike(config: schema.RunConfig) -> Told:
        off = NOISE[config.seed] * (1 if config.setup == "bn" else -1)
        return Told(test=0.6 + 0.001 * (config.setup == "bn") + off)

    (answer,) = answered(tmp_path, "seeds: 8\n", alike)["answer"]
    lead = [0.1 + 200 * off for off in NOISE]
    seeds = needed(lead, 1.0)
    assert seeds > 8
    half = 2.364624 * stdev(lead) / math.sqrt(8)
    ends = f"{points(fmean(lead) - half)} … {points(fmean(lead) + half)}"
    assert answer.startswith("bn did best: 60.3 [")
    assert f", {points(fmean(lead))} points over gn (95 % interval {ends}, 8 seeds)" in answer
    assert answer.endswith(
        f"not decided, it leans towards bn; about {seeds} seeds would tell a difference of 1 point."
    )


def test_what_is_decided_was_picked_after_looking(tmp_path: Path) -> None:
    answer = answered(tmp_path, f"{SIZES}seeds: 8\n")["answer"]
    assert answer[2].endswith("8 seeds); picked after looking, which flatters the lead, as a "
                              "claim does not.")  # fmt: skip


def test_it_says_which_mode_is_better(tmp_path: Path) -> None:
    for seeds, told in ((1, ""), (2, "13.5 and 13.5, "), (3, "95 % interval 13.5 to 13.5, ")):
        (tmp_path / str(seeds)).mkdir()
        answer = answered(tmp_path / str(seeds), f"{SIZES}seeds: {seeds}\n")["answer"]
        assert answer[-1] == (
            "bn (batch size 2): eval mode is 13.5 points better than training mode on validation "
            f"images ({told}{seeds} seed{'s' * (seeds > 1)})."
        )


def test_a_gap_that_may_be_chance_is_not_told(tmp_path: Path) -> None:
    def noisy(config: schema.RunConfig) -> Told:
        return Told(test=0.5, gap=(0.2, -0.1, 0.05)[config.seed] * (config.setup == "bn"))

    assert "mode" not in " ".join(answered(tmp_path, "seeds: 3\n", noisy)["answer"])


@pytest.mark.parametrize(
    ("budget", "sentence", "compared"),
    [
        (
            "epochs: 2",
            "Images are fixed (train.epochs): batch size 2 takes 1,500 steps, 16 takes 93; "
            "train.steps would fix the steps. The learning rate does not change with it.",
            "1,500 steps with 93",
        ),
        (
            "steps: 50",
            "Steps are fixed (train.steps): batch size 2 sees 100 images, 16 sees 800; "
            "train.epochs or train.examples would fix the images. The learning rate does not "
            "change with it.",
            "100 images with 800",
        ),
    ],
)
def test_it_says_what_else_changes_with_the_batch_size(
    tmp_path: Path, budget: str, sentence: str, compared: str
) -> None:
    def tell(config: schema.RunConfig) -> Told:
        size = config.data.batch_size
        return Told(steps=50 if config.train.steps else {2: 1500, 8: 370, 16: 93}[size])

    text = f"{SIZES}train: {{{budget}}}\nseeds: 1\n"
    plain = SMALL_YAML.replace("epochs: 2, ", "")
    study = read_study(invented(tmp_path, plain.replace("train: {", "# {") + SETUPS + text, tell))
    record = as_record(study, [], [], written=datetime(2026, 1, 2, tzinfo=UTC))
    assert sentence in record["answer"]
    assert f"This compares {compared}{ALONE}" in record["answer"]


def test_a_rate_that_follows_the_batch_size_is_told(tmp_path: Path) -> None:
    text = f"{SIZES}optim: {{lr_rule: linear}}\nseeds: 1\n"
    answer = " ".join(answered(tmp_path, text)["answer"])
    assert "The learning rate changes with it (optim.lr_rule: linear)." in answer


BOTH = "axes: {data.batch_size: [2, 16], optim.lr: [0.1, 1.0]}\n"


def fragile(config: schema.RunConfig) -> Told | None:
    """GroupNorm at the high rate stays at chance, diverges, fails or is missing."""
    if config.setup == "gn" and config.optim.lr == 1.0:
        if config.data.batch_size == 16 and config.seed == 2:
            return None
        state = ("completed", "diverged", "failed")[config.seed]
        return Told(curve=(0.27,), test=0.26, state=state)
    return well(config)


def test_with_two_axes_it_goes_along_one_at_each_value_of_the_other(tmp_path: Path) -> None:
    record = answered(tmp_path, f"{BOTH}seeds: 3\n", fragile)
    low, high, budget, shared, tuning, gap = record["answer"]
    assert low == (
        "Test accuracy in %, at learning rate 0.1, batch size 16 → 2: bn 64.4 → 54.5; "
        "gn 54.1 → 61.3."
    )
    assert high == (
        "Test accuracy in %, at learning rate 1, batch size 16 → 2: bn 64.4 → 54.5; gn 26.0 (1 of "
        "3 at chance, 1 of 3 diverged) → 26.0 (1 of 3 at chance, 1 of 3 diverged, 1 of 3 failed)."
    )
    assert budget.endswith("would fix the steps.")
    assert shared.endswith(ALONE)
    assert tuning.startswith("No learning rate was chosen: with `tune: {axis: optim.lr}`")
    assert "eval mode" in gap
    said = notices(record)
    assert (
        "2 runs diverged, part of no mean: 1 of 3 seeds of gn (batch size 2, learning rate 1); "
        "1 of 3 seeds of gn (batch size 16, learning rate 1)."
    ) in said
    assert (
        "2 runs did not learn: 1 of 3 seeds of gn (batch size 2, learning rate 1); 1 of 3 seeds of "
        "gn (batch size 16, learning rate 1). Test accuracy is below 30.0 %; chance is 25.0 %."
    ) in said


def test_a_tuned_axis_is_chosen_over(tmp_path: Path) -> None:
    text = f"{BOTH}tune: {{axis: optim.lr}}\nseeds: 3\n"
    record = answered(tmp_path, text, fragile)
    assert not [said for said in notices(record) if "diverged" in said or "did not learn" in said]
    answer = record["answer"]
    assert answer[0] == ("Test accuracy in %, batch size 16 → 2: bn 64.4 → 54.5; gn 54.1 → 61.3.")
    assert "Each setup is at its best learning rate on validation." in answer
    assert (
        "The chosen learning rate of bn and gn is an end of its grid: a better one may lie beyond "
        "(add 0.01 to optim.lr in the file, and sweep again)."
    ) in answer
    assert not [sentence for sentence in answer if "No learning rate" in sentence]


def test_a_rate_alone_is_gone_along_upwards(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        if config.setup == "gn" and config.optim.lr == 0.6:
            return Told(curve=(0.25,), test=0.25, state="diverged" if config.seed else "completed")
        return Told(test=0.6)

    answer = answered(tmp_path, "axes: {optim.lr: [0.03, 0.6]}\nseeds: 2\n", tell)["answer"]
    assert answer[0] == (
        "Test accuracy in %, learning rate 0.03 → 0.6: bn 60.0/60.0 → 60.0/60.0; gn 60.0/60.0 → "
        "25.0 (1 of 2 at chance, 1 of 2 diverged)."
    )


def test_many_values_and_setups_are_cut(tmp_path: Path) -> None:
    setups = ", ".join(f"s{n}: {{dropout: 0.0{n + 1}}}".replace("{d", "{model: {d") + "}"
                       for n in range(8))  # fmt: skip
    text = "axes: {optim.lr: {log: [0.001, 0.1, 9]}}\nseeds: 1\n"
    answer = answered(tmp_path, text, lambda _: Told(), f"setups: {{{setups}}}\n")["answer"]
    assert answer[0].startswith(
        "Test accuracy in %, learning rate 0.001 → 0.00316228 → 0.01 → 0.0316228 → 0.1 (5 of 9 "
        "values): s0 50.0 → 50.0 → 50.0 → 50.0 → 50.0; "
    )
    assert answer[0].endswith("; 2 more in the table.")


def test_values_without_order_are_arms(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        return Told(test={"relu": 0.6, "silu": 0.7}[config.model.model_dump()["activation"]])

    text = "axes: {model.activation: [relu, silu]}\nseeds: 1\n"
    (answer,) = answered(tmp_path, text, tell, "setups: {bn: {}}\n")["answer"]
    assert answer.startswith("bn (activation silu) did best: 70.0 % test accuracy (1 seed), +10.0 ")
    assert "over bn (activation relu) at the one seed" in answer


def test_a_setup_without_the_axis_is_one_value(tmp_path: Path) -> None:
    head = "setups: {none: {norm: {kind: none}}, gn: {norm: {kind: group}}}\n"
    text = "axes: {norm.groups: [1, 2]}\nseeds: 1\n"
    answer = answered(tmp_path, text, lambda _: Told(test=0.5), head)["answer"]
    assert answer[0] == "Test accuracy in %, groups 1 → 2: none 50.0; gn 50.0 → 50.0."


def test_null_stands_beside_the_values_of_its_axis(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        size = getattr(config.norm, "batch_size", 16)
        return Told(test={2: 0.4, 4: 0.5, None: 0.6, 16: 0.3}[size])

    text = "axes: {norm.batch_size: [2, 4, null]}\nseeds: 1\n"
    answer = answered(tmp_path, text, tell)["answer"]
    assert answer[0] == (
        "Test accuracy in %, normalization batch size 4 → 2: bn 50.0 → 40.0 (null: 60.0); gn 30.0."
    )


def test_one_run_is_compared_with_nothing(tmp_path: Path) -> None:
    answer = answered(tmp_path, "", lambda _: Told(test=0.27), "")["answer"]
    assert answer == [
        "batch-before reached 27.0 % test accuracy (1 seed, at chance); no other setup is there to "
        "compare it with."
    ]
