"""The sign-flip test against a loop over all patterns, SciPy's permutation test, and by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import inf, nan
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bnbench.stats.differences import sign_flip

Array = npt.NDArray[np.float64]


def share_of_all_patterns(differences: list[float]) -> Fraction:
    """The definition, in exact arithmetic: no rounding, no trick."""
    magnitudes = [abs(Fraction(value)) for value in differences]
    observed = sum(map(Fraction, differences), Fraction())
    hits = 0
    for signs in product((1, -1), repeat=len(differences)):
        pairs = zip(signs, magnitudes, strict=True)
        tossed = sum((sign * size for sign, size in pairs), Fraction())
        hits += tossed >= observed
    return Fraction(hits, 2 ** len(differences))


def mean_along(values: Array, axis: int) -> Array:
    return np.asarray(values.mean(axis=axis))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=9))
@example([0, 0, 0])
@example([1, -1])
def test_it_is_the_share_of_all_patterns(values: list[int]) -> None:
    """Integers have many ties, zeros and opposite pairs."""
    found = sign_flip([value / 10 for value in values])
    assert found == share_of_all_patterns(list(map(float, values)))


@pytest.mark.parametrize("n", [2, 6, 8, 11])
def test_it_is_scipys_permutation_test(n: int) -> None:
    for shift in (0.0, 0.7):
        values = np.random.default_rng(n).normal(shift, 1, n)
        expected = scipy_stats.permutation_test(
            (values,),
            mean_along,
            permutation_type="samples",
            alternative="greater",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert sign_flip(values.tolist()) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("n", [6, 8, 12])
def test_infinite_ones_are_ranked_as_by_wilcoxon(n: int) -> None:
    """∞ has the highest rank: as a finite value far beyond the others, without ties and with."""
    random = np.random.default_rng(n)
    for _ in range(5):
        values = random.normal(0.4, 1, n)
        values[0] = random.choice([-1e9, 1e9])
        infinite = np.where(np.abs(values) > 1e6, np.copysign(inf, values), values)
        expected = scipy_stats.wilcoxon(values, alternative="greater", method="exact").pvalue
        found = sign_flip(infinite.tolist())
        assert found == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(st.sampled_from([-inf, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, inf]), min_size=1, max_size=8),
)
def test_ranks_with_ties_zeros_and_several_infinities(values: list[float]) -> None:
    assume(any(map(np.isinf, values)))
    rest = [value for value in values if value]
    ranks = scipy_stats.rankdata(np.nan_to_num(np.abs(rest), posinf=1e6))
    signed = np.copysign(ranks, rest)
    expected = share_of_all_patterns(signed.tolist())
    assert sign_flip(values) == expected


def test_by_hand() -> None:
    assert sign_flip([1, 2, 3, 4, 5, 6]) == 1 / 64
    assert sign_flip([-1, -2, -3]) == 1
    # Of 1, 2, −3 (sum 0) half the eight sums ±1 ± 2 ± 3 are positive, two are 0.
    assert sign_flip([1, 2, -3]) == 5 / 8
    assert sign_flip([inf] * 6) == 1 / 64
    # Ranks 1, 2, 3 of 1, 2, −∞: sums of at least 1 + 2 − 3 = 0.
    assert sign_flip([1, 2, -inf]) == 5 / 8


def test_infinity_is_ranked_and_not_counted_as_one_more_sign() -> None:
    """−∞ outranks five small gains and is outranked by none: worse than a small loss."""
    large = sign_flip([1, 2, 3, 4, 5, -inf])
    small = sign_flip([1, 2, 3, 4, 5, -0.5])
    assert small < large


def test_zeros() -> None:
    assert sign_flip([0.0]) == 1
    assert sign_flip([0.0] * 30) == 1
    without = sign_flip([1, 2, 3, -0.5])
    assert sign_flip([1, 0, 2, 3, -0.0, -0.5]) == without
    without = sign_flip([1, 2, inf, -0.5])
    assert sign_flip([1, 0, 2, inf, -0.0, -0.5]) == without


def test_rounding_does_not_decide_about_ties() -> None:
    """Accuracies of 1,000 images: 0.76 − 0.75 and 0.26 − 0.25 are the same difference."""
    differences = [0.76 - 0.75, 0.26 - 0.25, 0.91 - 0.9, 0.51 - 0.5, 0.31 - 0.32, 0.11 - 0.12]
    assert len(set(map(abs, differences))) > 1
    expected = share_of_all_patterns([1, 1, 1, 1, -1, -1])
    assert sign_flip(differences) == expected
    # Negative control: taken to the letter, these numbers have another p-value.
    assert share_of_all_patterns(differences) != expected


def test_a_very_large_difference_hides_no_sign() -> None:
    """The sum of 10³⁰⁰ and 1 is 10³⁰⁰; all six still agree."""
    assert sign_flip([1e300, 1, 1, 2, 3, 5]) == 1 / 64
    assert sign_flip([1e308] * 6) == 1 / 64
    assert sign_flip([5e-324] * 6) == 1 / 64


def test_twenty_are_exact_and_twenty_one_are_drawn() -> None:
    assert sign_flip([1.0] * 20) == 2**-20
    assert 1e-5 <= sign_flip([1.0] * 21) < 1e-4
    # Never 0: the observed pattern is one of 100,000. No other is likely among 2⁴⁰.
    assert sign_flip([1.0] * 40) == 1e-5
    assert sign_flip([-1.0] * 40) == 1


@pytest.mark.parametrize("n", [21, 25, 60])
def test_drawn_patterns_come_near_the_exact_share(n: int) -> None:
    """±1 alone: the number of flipped signs is binomial."""
    for ups in (n // 2 + 1, n // 2 + 4):
        values = [1.0] * ups + [-1.0] * (n - ups)
        exact = float(scipy_stats.binom.sf(ups - 1, n, 0.5))
        error = (exact * (1 - exact) / 1e5) ** 0.5
        assert abs(sign_flip(values) - exact) < 4 * error


def test_drawn_patterns_are_the_same_every_time_and_in_any_order() -> None:
    random = np.random.default_rng(5)
    values = random.normal(0.3, 1, 40)
    first = sign_flip(values.tolist())
    np.random.default_rng().normal(size=3)
    assert sign_flip(values.tolist()) == first
    assert sign_flip(random.permutation(values).tolist()) == first
    assert sign_flip((1024 * values).tolist()) == first


def test_drawn_patterns_of_ranks_come_near_wilcoxons_test() -> None:
    values = np.random.default_rng(5).normal(0.3, 1, 40)
    values[3] = 1e9
    exact = float(scipy_stats.wilcoxon(values, alternative="greater", method="exact").pvalue)
    values[3] = inf
    found = sign_flip(values.tolist())
    assert abs(found - exact) < 4 * (exact * (1 - exact) / 1e5) ** 0.5


@given(
    st.lists(st.integers(-9, 9) | st.sampled_from([inf, -inf]), min_size=1, max_size=12),
    st.randoms(),
)
def test_invariances(values: list[float], random: Random) -> None:
    shuffled = random.sample(values, len(values))
    scaled = [0.3 * value for value in values]
    swapped = [-value for value in values]
    p = sign_flip(values)
    assert 0 < p <= 1
    assert sign_flip(shuffled) == p
    assert sign_flip(scaled) == p
    assert p + sign_flip(swapped) > 1  # both tails hold the observed pattern


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=10))
def test_whatever_the_numbers(values: list[float]) -> None:
    assert 0 < sign_flip(values) <= 1


def test_no_differences_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        sign_flip([])
    with pytest.raises(ValueError, match="not a number"):
        sign_flip([1.0, nan])
