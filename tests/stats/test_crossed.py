"""The interval over seeds and images against sums over the table, and against known truths."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bnbench.stats import crossed
from bnbench.stats.crossed import crossed_interval
from tests.stats.honesty import over_images
from tests.stats.samples import four_errors, students


def mean_squares(table: list[list[float]]) -> tuple[float, float, float]:
    """Of seeds, images and what is left: by their definitions, a value at a time."""
    n, m = len(table), len(table[0])
    rows = [sum(row) / m for row in table]
    columns = [sum(row[i] for row in table) / n for i in range(m)]
    whole = sum(rows) / n
    left = sum(
        (table[s][i] - rows[s] - columns[i] + whole) ** 2 for s in range(n) for i in range(m)
    )
    return (
        m * sum((row - whole) ** 2 for row in rows) / (n - 1),
        n * sum((column - whole) ** 2 for column in columns) / (m - 1),
        left / ((n - 1) * (m - 1)),
    )


@pytest.mark.parametrize("images_vary", [1.0, 3.0])
def test_it_is_of_the_two_way_tables_mean_squares(images_vary: float) -> None:
    random = np.random.default_rng(3)
    table = random.normal(0, 1, (6, 40)) + images_vary * random.normal(0, 1, 40)
    table += random.normal(5, 0.2, (6, 1))
    of_seeds, of_images, left = mean_squares(table.tolist())
    variance = (of_seeds + of_images - left) / 240
    freedom = (240 * variance) ** 2 / (of_seeds**2 / 5 + of_images**2 / 39 + left**2 / 195)
    half = scipy_stats.t.ppf(0.975, freedom) * sqrt(variance)
    low, high = crossed_interval(table)
    assert (low, high) == pytest.approx((table.mean() - half, table.mean() + half))


def test_where_images_add_nothing_it_is_students() -> None:
    """All seeds differ in the same images, or answers are noise alone: never narrower than that."""
    table = np.repeat([[1.0], [2.0], [4.0]], 50, axis=1)
    assert crossed_interval(table) == pytest.approx(students([1, 2, 4]))
    noise = np.random.default_rng(0).normal(0, 1, (8, 300))
    low, high = crossed_interval(noise)
    student = students(noise.mean(1).tolist())
    assert low <= student.low + 1e-12
    assert student.high <= high + 1e-12
    assert crossed_interval(np.zeros((6, 9))) == (0, 0)


@pytest.mark.parametrize("n", [6, 10])
def test_it_holds_for_other_images_where_that_of_seeds_does_not(n: int) -> None:
    """Negative control: Student's interval of the seeds misses the truth, 0, too often."""
    found = over_images(n, 400, 2.0, 300)
    print(f"\nn = {n}: {found}")
    assert found["seeds and images: missed"] <= 0.05 + four_errors(0.05, 300)
    assert found["seeds and images: supported"] <= 0.05 + four_errors(0.05, 300)
    assert found["seeds: missed"] > 0.1


def test_what_has_no_interval() -> None:
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(ValueError, match="do not say how"):
            crossed_interval(np.zeros(shape))
    with pytest.raises(ValueError, match="not finite"):
        crossed_interval(np.full((3, 3), nan))


def test_a_large_table_of_small_numbers_has_the_same_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = 100.0 * np.random.default_rng(1).integers(-1, 2, (7, 30))
    whole = crossed_interval(table)
    assert crossed_interval(table.astype(np.float32)) == whole, "and in the precision of fp64"
    for rows in (0, 1, 2, 7):
        monkeypatch.setattr(crossed, "BLOCK", rows * 30)
        assert crossed_interval(table) == pytest.approx(whole, rel=1e-12)
