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

from bnbench.stats.effect import Direction, effect
from bnbench.stats.verdict import judge
from tests.stats.honesty import rarely_failing, same_arms, share, wrong
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
    students,
)

EXPERIMENTS = 2000


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
        rows = same_arms(draw, n, 24) * np.resize([1.0, 0.1], (24, 1)) + effects
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


@pytest.mark.parametrize("n", [6, 8, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("draw", DRAWS)
def test_no_wrong_verdict_comes_often(draw: Draw, n: int) -> None:
    """Supported, refuted or negligible where the truth is the edge itself; 0 is A against A.

    The test errs in at most 2/64, 12/256 and 50/1024, so that the rate itself may be near 5 %, and
    what is counted beyond it by chance."""
    found = wrong(draw, n, EXPERIMENTS)
    print(f"\n{draw.__name__}, n = {n}: wrong {found}")
    exact = {6: 3 / 64, 8: 12 / 256, 10: 51 / 1024}[n]
    for outcome, rate in found.items():
        assert rate <= exact + four_errors(exact, EXPERIMENTS), outcome


@pytest.mark.parametrize(("outcome", "sign"), [("supported", 1), ("refuted", -1)])
def test_without_the_shift_a_claim_of_more_than_the_smallest_effect_is_held_too_soon(
    outcome: str, sign: int
) -> None:
    """Negative control for Holm's correction: a test against 0 is of another claim, and its p says
    nothing of the smallest effect. Of files of five claims, whose effect is exactly that, those
    with a wrong verdict come from Student's interval alone then: five times 2.5 %."""
    rows = sign * (same_arms(gaussian, 10, 5 * 1000) + 4.0)
    at_zero = {
        name: adjusted(p.reshape(-1, 5)).reshape(-1) for name, p in p_values(rows, 0, "up").items()
    }
    found = outcomes(rows, at_zero, smallest=4.0, direction="up").reshape(-1, 5)
    assert (found == outcome).any(axis=1).mean() > 0.08
    shifted = share(outcome, rows, 4.0, claims=5)
    assert shifted <= 0.05 + four_errors(0.05, 1000)


@pytest.mark.parametrize("direction", ["up", "two-sided"])
@pytest.mark.parametrize("draw", DRAWS)
def test_of_all_signs_that_equal_arms_could_have_had_few_are_supported(
    draw: Draw, direction: Direction
) -> None:
    """No chance: whatever the magnitudes, of all 2⁸ equally likely patterns at most 5 %."""
    signs = np.array(list(product((1.0, -1.0), repeat=8)))
    for row in same_arms(draw, 8, 3):
        patterns = np.where(row == 0, 0.0, np.copysign(np.abs(row), signs))
        found = counted(patterns, direction=direction)
        assert found["supported"] <= 0.05 * 2**8


@pytest.mark.parametrize("draw", [gaussian, student_2, contaminated])
def test_in_a_file_of_five_such_claims_any_is_rarely_supported(draw: Draw) -> None:
    """Negative control: without Holm's correction, one claim in five is supported too often."""
    rows = same_arms(draw, 8, 5 * 1000)
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


def test_a_failure_that_six_seeds_mostly_do_not_show_is_not_seen() -> None:
    """Equal in the mean, better in nine seeds of ten: no test of the mean sees what is not in its
    sample, and the interval of six seeds that are all better does not either."""
    assert rarely_failing(6, 1000) == pytest.approx(0.9**6, abs=0.08)


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
    intervals = map(students, samples.tolist())
    student = sum(not low <= 0 <= high for low, high in intervals) / EXPERIMENTS
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
