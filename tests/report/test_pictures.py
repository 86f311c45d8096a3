"""Pictures of a run's probes: which there are, and that TensorBoard shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnbench.board.views import open_view
from bnbench.report.figures.probes import probe_pictures
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder, RunFolder
from tests.runs import all_probes, no_norm_config, small_config

PNG = b"\x89PNG\r\n\x1a\n"
ALL = {
    *("percentiles", "landscape", "running_error_by_layer", "gap_by_layer"),
    *("activation_drift_by_layer", "gradient_shift_by_layer"),
}


def images(folder: RunFolder) -> set[str]:
    accumulator = EventAccumulator(str(folder.path))
    accumulator.Reload()
    tags: list[str] = [
        tag.removeprefix("images/")
        for tag in accumulator.Tags()["tensors"]
        if tag.startswith("images/")
    ]
    return set(tags)


def test_a_finished_run_shows_what_its_probes_have_read(tmp_path: Path) -> None:
    config = small_config(probes=all_probes(every=8))
    folder = execute(config, ExperimentFolder(tmp_path), Settings()).folder
    kept = folder.pictures()
    assert set(kept) == ALL
    assert all(png.startswith(PNG) for png in kept.values())
    assert images(folder) == ALL | {"first_batch", "confusion_test"}
    # A view made anew shows them as well; a run thrown away has none.
    open_view(folder).close()
    assert images(folder) >= ALL
    with folder.hold():
        folder.clear()
    assert folder.pictures() == {}


def test_only_what_was_read_is_drawn(tmp_path: Path) -> None:
    folder = execute(
        no_norm_config(probes=all_probes(every=8)), ExperimentFolder(tmp_path), Settings()
    ).folder
    found = probe_pictures(folder)
    # Without batch statistics there are no layers to blame.
    assert set(found) == ALL - {"running_error_by_layer", "gap_by_layer"}
    bare = execute(small_config(), ExperimentFolder(tmp_path), Settings()).folder
    assert probe_pictures(bare) == {}


def test_what_cannot_be_drawn_is_a_warning_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: RunFolder) -> dict[str, bytes]:
        raise RuntimeError("no ink")

    said: list[str] = []
    config = small_config(probes=all_probes(every=8))
    monkeypatch.setattr("bnbench.report.figures.probes.probe_pictures", broken)
    settings = Settings(announce=said.append)
    result = execute(config, ExperimentFolder(tmp_path), settings)
    assert result.result.state == "completed"
    assert said[-1] == f"warning: {result.folder.name}: no pictures of its probes (no ink)"
