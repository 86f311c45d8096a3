"""How often verdicts are wrong where the truth is known, and what each rule is there for.

`pytest tests/stats/test_honesty.py -s` prints the rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import isnan

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bnbench.stats.differences import paired_t_interval
from bnbench.stats.effect import Direction, effect
from bnbench.stats.verdict import judge
from tests.stats.many import adjusted, counted, outcomes, p_values
from tests.stats.samples import (
    DRAWS,
    Array,
    Draw,
    bimodal,
    contaminated,
    four_errors,
    gaussian,
    never_arriving,
    paired_differences,
    student_2,
)

EXPERIMENTS = 2000


def experiments(draw: Draw, n: int, *, count: int = EXPERIMENTS) -> Array:
    """(count, n) paired differences of two arms that are the same."""
    random = np.random.default_rng([n, count, len(draw.__name__)])
    a, b = draw(random, (2, count, n))
    return paired_differences(a, b)


def of_the_package(
    file: Sequence[Sequence[float]], smallest: float, direction: Direction
) -> list[str]:
    """The outcomes of the claims of one file."""
    claims = [
        effect(
            [value for value in row if not isnan(value)],
            smallest_effect=smallest,
            direction=direction,
            ties=sum(map(isnan, row)),
        )
        for row in file
    ]
    return [verdict.outcome for verdict in judge([(claim, ()) for claim in claims])]


@pytest.mark.parametrize("direction", ["up", "two-sided"])
@pytest.mark.parametrize("draw", DRAWS)
def test_what_is_simulated_is_what_the_package_says(draw: Draw, direction: Direction) -> None:
    """Files of four claims, with effects of all sizes: every outcome, every method."""
    found: Counter[str] = Counter()
    for n, smallest in product((6, 8, 12), (0.0, 0.5)):
        effects = np.resize([-3.0, 0.0, 1.0, 2.0, 4.0], (24, 1))
        rows = experiments(draw, n, count=24) * np.resize([1.0, 0.1], (24, 1)) + effects
        p = {
            outcome: adjusted(each.reshape(6, 4)).reshape(24)
            for outcome, each in p_values(rows, smallest, direction).items()
        }
        simulated = outcomes(rows, p, smallest=smallest, direction=direction)
        files = rows.reshape(6, 4, n).tolist()
        said = [each for file in files for each in of_the_package(file, smallest, direction)]
        assert simulated.tolist() == said
        found.update(said)
    assert found["supported"]
    assert found["inconclusive"]
    assert found["negligible"] or draw in (never_arriving, bimodal)


@pytest.mark.parametrize("n", [6, 8, 10])
@pytest.mark.parametrize("draw", DRAWS)
def test_a_setup_against_itself_is_rarely_supported(draw: Draw, n: int) -> None:
    """With a smallest effect of 0, where the interval is the least help."""
    found = counted(experiments(draw, n))
    print(f"\nA/A {draw.__name__}, n = {n}: {dict(found)}")
    assert found["supported"] <= 0.05 * EXPERIMENTS
    assert found.total() == EXPERIMENTS


@pytest.mark.parametrize("n", [6, 8, 10])
@pytest.mark.parametrize("draw", DRAWS)
def test_nor_is_it_where_either_direction_would_do(draw: Draw, n: int) -> None:
    """Here Student's interval errs in 5 % and the test in 2/64 and 12/256, so the rate itself may
    be near 5 %, and what is counted beyond it by chance."""
    found = counted(experiments(draw, n), direction="two-sided")
    print(f"\nA/A {draw.__name__}, n = {n}, two-sided: {dict(found)}")
    exact = {6: 2 / 64, 8: 12 / 256, 10: 50 / 1024}[n]
    assert found["supported"] / EXPERIMENTS <= exact + four_errors(exact, EXPERIMENTS)
    assert found["refuted"] == 0


@pytest.mark.parametrize("direction", ["up", "two-sided"])
@pytest.mark.parametrize("draw", DRAWS)
def test_of_all_signs_that_equal_arms_could_have_had_few_are_supported(
    draw: Draw, direction: Direction
) -> None:
    """No chance: whatever the magnitudes, of all 2⁸ equally likely patterns at most 5 %."""
    signs = np.array(list(product((1.0, -1.0), repeat=8)))
    for row in experiments(draw, 8, count=3):
        patterns = np.where(row == 0, 0.0, np.copysign(np.abs(row), signs))
        found = counted(patterns, direction=direction)
        assert found["supported"] <= 0.05 * 2**8


@pytest.mark.parametrize("draw", [gaussian, student_2, contaminated])
def test_in_a_file_of_five_such_claims_any_is_rarely_supported(draw: Draw) -> None:
    """Negative control: without Holm's correction, one claim in five is supported too often."""
    rows = experiments(draw, 8, count=5 * 1000)
    raw = p_values(rows, 0, "two-sided")
    p = raw["supported"].reshape(1000, 5)

    def share(corrected: Array) -> int:
        of_each = raw | {"supported": corrected.reshape(5000)}
        found = outcomes(rows, of_each, smallest=0, direction="two-sided")
        return int((found == "supported").reshape(1000, 5).any(axis=1).sum())

    together, apart = share(adjusted(p)), share(p)
    print(
        f"\nfive A/A claims, {draw.__name__}: {together / 1000:.1%}, uncorrected {apart / 1000:.1%}"
    )
    assert together <= 0.05 * 1000
    assert apart > 0.05 * 1000


@pytest.mark.parametrize("n", [6, 8, 12])
@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_effects_of_twice_the_smallest_are_found(n: int, spread: float) -> None:
    """Gaussian, `spread` in smallest effects. The interval's part of the power is known from the
    noncentral t distribution; the sign-flip test may only take away from it."""
    random = np.random.default_rng(n)
    found = counted(random.normal(2.0, spread, (EXPERIMENTS, n)), smallest=1.0)
    power = found["supported"] / EXPERIMENTS
    threshold = scipy_stats.t.ppf(0.975, n - 1)
    ideal = float(scipy_stats.nct.sf(threshold, n - 1, n**0.5 / spread))
    print(f"\npower at twice the smallest effect, s = {spread}, n = {n}: {power:.1%} ({ideal:.1%})")
    assert ideal - 0.1 < power < ideal + four_errors(ideal, EXPERIMENTS)
    assert found["refuted"] + found["negligible"] <= 0.01 * EXPERIMENTS


@pytest.mark.parametrize("truth", [1.0, -1.0])
def test_an_effect_at_the_edge_is_rarely_called_negligible_or_more(truth: float) -> None:
    """Where the true mean is exactly the smallest effect, each side errs in 2.5 % at most."""
    random = np.random.default_rng(7)
    found = counted(random.normal(truth, 0.7, (EXPERIMENTS, 8)), smallest=1.0)
    limit = 0.025 + four_errors(0.025, EXPERIMENTS)
    beyond = found["supported"] if truth > 0 else found["refuted"]
    assert beyond / EXPERIMENTS <= limit
    assert found["negligible"] / EXPERIMENTS <= limit


@pytest.mark.parametrize("n", [6, 8])
def test_one_arm_that_never_arrives_more_often_is_seen_through_the_infinities(n: int) -> None:
    """Ours arrives always, the other in one run of ten: most experiments see it. The claim turned
    around is never supported."""
    random = np.random.default_rng(n)
    ours = random.normal(0, 1, (500, n))
    theirs = np.where(random.random((500, n)) < 0.9, np.inf, random.normal(0, 1, (500, n)))
    gains = paired_differences(theirs, ours)
    assert counted(gains, smallest=0.2)["supported"] > 0.4 * 500
    assert counted(-gains, smallest=0.2)["supported"] == 0


# What the rules are there for: the same trials without them.


@pytest.mark.parametrize(("n", "at_least"), [(3, 0.18), (4, 0.15), (5, 0.12)])
def test_a_percentile_bootstrap_over_few_seeds_rejects_a_true_null_too_often(
    n: int, at_least: float
) -> None:
    """Three times as often as it says and more; Student's interval as often as it says."""
    random = np.random.default_rng(n)
    samples = random.normal(0, 1, (EXPERIMENTS, n))
    resampled = random.integers(0, n, (EXPERIMENTS, 1000, n))
    means = np.take_along_axis(samples[:, None], resampled, axis=2).mean(2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    bootstrap = float(((low > 0) | (high < 0)).mean())
    students = [paired_t_interval(row) for row in samples.tolist()]
    student = sum(not low <= 0 <= high for low, high in students) / EXPERIMENTS
    print(f"\nrejections of a true null, n = {n}: bootstrap {bootstrap:.1%}, Student {student:.1%}")
    assert bootstrap > at_least
    assert student == pytest.approx(0.05, abs=four_errors(0.05, EXPERIMENTS))


def test_leaving_diverged_runs_out_supports_what_is_not_so() -> None:
    """Both arms are good at the same rate, but ours diverges where it would have lost: what is left
    of it looks better. Kept as −∞, the diverged seeds say so."""
    random = np.random.default_rng(3)
    differences = random.normal(0.0, 1.0, (300, 12))
    kept = np.where(differences < -0.3, -np.inf, differences)
    left = [row[np.isfinite(row)] for row in kept]
    claims = [effect(row, smallest_effect=0, direction="up") for row in left if len(row) >= 6]
    dropped = sum(judge([(claim, ())])[0].outcome == "supported" for claim in claims)
    assert dropped > 0.5 * len(claims)
    assert counted(kept)["supported"] <= 0.05 * 300


def test_with_five_seeds_no_two_sided_sign_test_can_decide() -> None:
    five = effect([9.0, 9.1, 9.2, 9.3, 9.4], smallest_effect=1, direction="two-sided")
    six = effect([9.0, 9.1, 9.2, 9.3, 9.4, 9.5], smallest_effect=1, direction="two-sided")
    assert five.p["supported"] == 0.0625
    assert six.p["supported"] == 0.03125
