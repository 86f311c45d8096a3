"""What the shipped experiments promise about learning, on real images."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnbench.config import files, loading, plans
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder, Record

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


def trained(tmp_path: Path, name: str, *overrides: str) -> Record:
    """The result of a shipped experiment of one run, on one thread."""
    experiment = loading.load_experiment(files.find_config(name), loading.Overrides(set=overrides))
    folder = ExperimentFolder(tmp_path / name)
    return execute(plans.expand(experiment).only(), folder, Settings(threads=1)).result.as_record()


@pytest.mark.slow
def test_the_default_run_learns(tmp_path: Path) -> None:
    result = trained(tmp_path, "default")
    assert result["test"]["running"]["accuracy"] >= 0.82
    assert result["examples"] == 26_880


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_all_of_fashion_mnist_trains(tmp_path: Path) -> None:
    """The full 60,000 images, from Debian's files: a tenth of an epoch is far above chance."""
    result = trained(
        tmp_path,
        "fashion-mnist",
        f"data.root={DEBIAN}",
        "train={steps: 60}",
        "model.widths=[8, 16]",
    )
    assert result["examples"] == 60 * 128
    assert result["val"]["running"]["accuracy"] > 0.5
