"""What a small network on real images must show, or there is a bug: ten directions, a run each way.

The claims of `configs/claims/` measure how much; these tests only see that the sign is right, with
margins that one seed can bear.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.config import files, loading, metrics, plans
from bnbench.report.quantities import quantity
from bnbench.report.reading import read_study
from bnbench.report.study import StudiedRun
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    """Trains an experiment and returns its runs by setup and axis values."""

    def train(text: str, seed: int = 0) -> dict[tuple[Any, ...], StudiedRun]:
        path = tmp_path / f"x{seed}.yaml"
        path.write_text(f"seed: {seed}\n{text}", encoding="utf-8")
        experiment = loading.load_experiment(path, loading.Overrides())
        folder = ExperimentFolder(tmp_path / f"runs{seed}")
        folder.begin(files.dump_experiment(experiment))
        for config in plans.expand(experiment).runs:
            execute(config, folder, Settings(threads=1))
        return {(run.setup, *run.point.values()): run for run in read_study(folder).runs}

    return train


def value(run: StudiedRun, metric: str) -> float:
    found = quantity(metrics.parse_metric(metric), [run], target=None, when="last")
    assert found is not None
    return found


def accuracy(run: StudiedRun, statistics: str = "running") -> float:
    return value(run, f"test/{statistics}/accuracy")


def test_batch_trains_at_rates_where_none_fails(runs: Any) -> None:
    found = runs(
        "data: {train_size: 2000, batch_size: 32}\nmodel: {blocks: 3}\n"
        "train: {epochs: 2, evaluations: 1}\n"
        "setups: {none: {norm: {kind: none}}, batch: }\naxes: {optim.lr: [0.3]}"
    )
    assert accuracy(found["none", 0.3]) < 25
    assert accuracy(found["batch", 0.3]) > 55


def test_with_sigmoids_batch_trains_where_none_stays_at_chance(runs: Any) -> None:
    found = runs(
        "data: {train_size: 2000, batch_size: 32}\nmodel: {blocks: 2, activation: sigmoid}\n"
        "train: {epochs: 2, evaluations: 1}\noptim: {lr: 0.3}\n"
        "setups: {none: {norm: {kind: none}}, batch: }"
    )
    assert accuracy(found["none",]) < 15
    assert accuracy(found["batch",]) > 40


def test_two_images_a_batch_are_too_few_for_batch_statistics(runs: Any) -> None:
    found = runs(
        "data: {train_size: 2000, batch_size: 2}\noptim: {lr_rule: linear}\n"
        "train: {epochs: 1, evaluations: 1}\n"
        "setups: {batch: , group: {norm: {kind: group}}}"
    )
    batch, group = found["batch",], found["group",]
    assert accuracy(batch) < accuracy(group)
    assert value(batch, "train/batch/loss") > value(batch, "train/running/loss") + 0.15
    assert value(group, "test/gap/loss") == value(group, "val/gap/kl") == 0.0


def test_noise_falls_as_more_images_share_statistics(runs: Any) -> None:
    found = runs(
        "data: {train_size: 1000, batch_size: 64}\ntrain: {epochs: 2, evaluations: 1}\n"
        "probes: {batch_noise: {}}\n"
        "setups: {batch: , group: {norm: {kind: group}}}\naxes: {norm.batch_size: [2, 64]}"
    )
    noise = [value(found["batch", size], "probe/batch_noise/noise") for size in (2, 64)]
    assert noise[0] > 4 * noise[1] > 0
    assert value(found["group", None], "probe/batch_noise/noise") == 0.0


def test_running_statistics_begin_far_off_and_arrive(runs: Any) -> None:
    found = runs(
        "data: {train_size: 2000, batch_size: 32}\ntrain: {epochs: 3, evaluations: 6}\n"
        "probes: {running_error: {every: 1}}\nsetups: {batch: }"
    )
    (run,) = found.values()
    errors = list(run.history.probes["running_error"]["network"]["mean"].values())
    assert errors[0] > 0.2
    assert errors[-1] < 0.05
    early = run.history.curves["val", "population"].accuracy[0]
    assert early > run.history.curves["val", "running"].accuracy[0] - 0.02


def test_sorted_batches_ruin_inference_with_batch_and_not_with_group(runs: Any) -> None:
    found = runs(
        "data: {train_size: 2000, batch_size: 128}\ntrain: {epochs: 4, evaluations: 1}\n"
        "setups:\n"
        "  batch: {norm: {kind: batch, batch_size: 16}}\n"
        "  sorted: {norm: {kind: batch, batch_size: 16}, data: {order: class-sorted-batches}}\n"
        "  group: {norm: {kind: group}}\n"
        "  group-sorted: {norm: {kind: group}, data: {order: class-sorted-batches}}\n"
    )
    assert accuracy(found["sorted",]) < accuracy(found["batch",]) - 10
    assert abs(accuracy(found["group",]) - accuracy(found["group-sorted",])) < 8
    assert value(found["group-sorted",], "test/gap/accuracy") == 0.0


def test_sorted_batches_are_classified_better_by_their_own_statistics(runs: Any) -> None:
    """Composed as in training. Sorted as a whole, most batches would hold one class, which training
    hardly has: there running statistics seem to be the better ones by 20 points."""
    (run,) = runs(
        "data: {train_size: 3000, batch_size: 128, order: class-sorted-batches}\n"
        "optim: {lr_rule: linear}\ntrain: {epochs: 4, evaluations: 1}\n"
        "norm: {kind: batch, batch_size: 16}",
        seed=100,
    ).values()
    for split in ("train", "val", "test"):
        assert value(run, f"{split}/gap/accuracy") < -5


def test_scales_and_shifts_alone_learn(runs: Any) -> None:
    found = runs(
        "data: {train_size: 3000, batch_size: 32}\noptim: {train_only: norm, lr: 0.3}\n"
        "train: {epochs: 3, evaluations: 1}\nsetups: {batch: }"
    )
    (run,) = found.values()
    assert accuracy(run) > 30  # chance is 10 %


def test_a_ghost_batch_as_large_as_the_batch_is_batch_norm(runs: Any) -> None:
    # One step: what rounding leaves between two kernels grows about tenfold a step.
    found = runs(
        "data: {train_size: 2000, batch_size: 32}\ntrain: {steps: 1, evaluations: 1}\n"
        "setups: {batch: , ghost: {norm: {kind: ghost, batch_size: 32}}}"
    )
    for split in ("train", "val", "test"):
        for kind in ("running", "batch"):
            losses = [value(run, f"{split}/{kind}/loss") for run in found.values()]
            assert losses[0] == pytest.approx(losses[1], rel=1e-4)
