"""Runs reduced to numbers, by hand-made runs whose numbers are known."""

from __future__ import annotations

from math import inf, log2, log10
from pathlib import Path

import pytest

from bnbench.config import metrics
from bnbench.report.quantities import When, quantity
from bnbench.report.reading import read_study
from bnbench.report.study import StudiedRun, within_chance
from tests.report.invented import Told, invented

ONE = "setups: {a: {norm: {kind: batch}}}"
RATES = "setups: {a: }\naxes: {optim.lr: [0.01, 0.1, 1, 10, 100]}"


def only(path: Path, told: Told) -> StudiedRun:
    (run,) = read_study(invented(path, ONE, lambda _: told)).runs
    return run


def value(
    name: str, run: StudiedRun, *, target: float | None = None, when: When = "last"
) -> float | None:
    return quantity(metrics.parse_metric(name), [run], target=target, when=when)


def test_readings_of_the_end(tmp_path: Path) -> None:
    run = only(tmp_path, Told((0.2, 0.6), test=0.7, train_loss=0.25, gap=0.1))
    assert value("test/running/accuracy", run) == pytest.approx(70)
    assert value("test/batch/accuracy", run) == pytest.approx(60)
    assert value("val/running/error", run) == pytest.approx(40)
    assert value("train/population/loss", run) == 0.25
    assert value("val/gap/accuracy", run) == pytest.approx(10)
    assert value("test/gap/kl", run) == pytest.approx(0.1)
    assert value("images_per_second", run) == pytest.approx(log2(1000))
    assert value("train_seconds", run) == pytest.approx(log2(1.0))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ((0.1, 0.5, 0.4, 0.6, 0.7), 4),  # once is not enough; the first of the two counts
        ((0.6, 0.7), 1),
        ((0.1, 0.2, 0.9), None),  # at the last evaluation only
        ((0.5, 0.5, 0.1), 1),  # reached is reached, and the target itself is enough
        ((0.1,), None),
    ],
)
def test_a_target_is_reached_twice_in_a_row(
    tmp_path: Path, curve: tuple[float, ...], expected: int | None
) -> None:
    run = only(tmp_path, Told(curve))
    for name, each in (("examples", 1000), ("steps", 10), ("seconds", 0.5)):
        wanted = inf if expected is None else log2(each * expected)
        assert value(f"val/running/{name}_to_target", run, target=0.5) == pytest.approx(wanted)


def test_a_diverged_run_stands_at_the_bad_end(tmp_path: Path) -> None:
    run = only(tmp_path, Told((0.9, 0.9), state="diverged"))
    assert value("test/running/accuracy", run) == -inf
    assert value("test/running/error", run) == inf
    assert value("train/batch/loss", run) == inf
    assert value("val/running/examples_to_target", run, target=0.5) == inf
    assert value("val/gap/accuracy", run) is None  # it has no end


def test_what_was_not_finished_is_missing(tmp_path: Path) -> None:
    for state in ("failed", "interrupted"):
        path = tmp_path / state
        path.mkdir()
        run = only(path, Told(state=state))
        assert run.state == state
        for name in ("test/running/accuracy", "val/gap/loss", "images_per_second"):
            assert value(name, run) is None


PROBES = {
    ("activation_drift", "b1.norm", "mean_drift"): (10.0, 30.0),
    ("activation_drift", "b1.norm", "p50"): (0.0, 0.0),  # an activation follows
    ("activation_drift", "b1.conv", "mean_drift"): (1.0, 2.0),
    ("activation_drift", "b2.conv", "mean_drift"): (3.0, 6.0),
    ("activation_drift", "b2.conv", "p50"): (0.0, 0.0),
    ("batch_noise", "network", "noise"): (5.0, 7.0),
    ("batch_noise", "b1.conv", "noise"): (500.0, 700.0),
    ("landscape", "network", "beta"): (1.0, float("nan")),
}


@pytest.mark.parametrize(
    ("name", "when", "expected"),
    [
        ("probe/batch_noise/noise", "last", 7.0),  # the network's own, where there is one
        ("probe/batch_noise/noise", "first", 5.0),
        ("probe/batch_noise/noise", "mean", 6.0),
        ("probe/activation_drift/mean_drift", "last", (2 + 6 + 30) / 3),
        ("probe/activation_drift/*.conv/mean_drift", "mean", (1.5 + 4.5) / 2),
        ("probe/activation_drift/inputs/mean_drift", "last", (30 + 6) / 2),  # norm, else conv
        ("probe/activation_drift/b2.conv/mean_drift", "last", 6.0),
        ("probe/activation_drift/b3.*/mean_drift", "last", None),
        ("probe/activation_drift/std_drift", "last", None),
        ("probe/landscape/beta", "last", None),  # not finite
        ("probe/landscape/beta", "first", 1.0),
    ],
)
def test_probes(tmp_path: Path, name: str, when: When, expected: float | None) -> None:
    run = only(tmp_path, Told(probes=PROBES))
    found = value(name, run, when=when)
    assert found == (None if expected is None else pytest.approx(expected))


def rates(path: Path, accuracies: dict[float, float | None]) -> list[StudiedRun]:
    """None: diverged."""

    def tell(config: object) -> Told:
        accuracy = accuracies[config.optim.lr]  # type: ignore[attr-defined]
        return Told((0.1,), state="diverged") if accuracy is None else Told((accuracy,))

    return list(read_study(invented(path, RATES, tell)).runs)


@pytest.mark.parametrize(
    ("accuracies", "largest", "decades"),
    [
        ((0.1, 0.6, 0.7, 0.6, 0.1), 10.0, 2.0),
        ((0.6, 0.6, 0.7, 0.6, 0.5), 100.0, 4.0),
        ((0.1, 0.6, None, 0.6, None), 10.0, 0.0),  # a range with a hole is two
        ((0.6, 0.6, 0.1, 0.1, 0.6), 100.0, 1.0),
        ((0.1, 0.1, 0.6, 0.1, None), 1.0, 0.0),
    ],
)
def test_usable_learning_rates(
    tmp_path: Path, accuracies: tuple[float | None, ...], largest: float, decades: float
) -> None:
    runs = rates(tmp_path, dict(zip((0.01, 0.1, 1, 10, 100), accuracies, strict=True)))
    found = quantity(metrics.parse_metric("usable_lr_max"), runs, target=0.5, when="last")
    assert found == pytest.approx(log10(largest))
    width = quantity(metrics.parse_metric("usable_lr_decades"), runs, target=0.5, when="last")
    assert width == pytest.approx(decades)


def test_no_usable_learning_rate_is_worse_than_any(tmp_path: Path) -> None:
    runs = rates(tmp_path, dict.fromkeys((0.01, 0.1, 1, 10, 100), None))
    for name in ("usable_lr_max", "usable_lr_decades"):
        assert quantity(metrics.parse_metric(name), runs, target=0.5, when="last") == -inf


def test_a_missing_rate_hides_what_is_usable(tmp_path: Path) -> None:
    folder = invented(
        tmp_path, RATES, lambda config: None if config.optim.lr == 10 else Told((0.9,))
    )
    runs = list(read_study(folder).runs)
    assert quantity(metrics.parse_metric("usable_lr_max"), runs, target=0.5, when="last") is None


@pytest.mark.parametrize(
    ("accuracy", "classes", "expected"),
    [
        (0.10, 10, True),
        (0.149, 10, True),
        (0.15, 10, False),
        (0.54, 2, True),
        (0.56, 2, False),
        (0.014, 100, True),
        (0.02, 100, False),
        (0.1, None, False),
    ],
)
def test_chance(accuracy: float, classes: int | None, expected: bool) -> None:
    assert within_chance(accuracy, classes) == expected
