"""Means over seeds: which seeds are in them, and what is said about the others."""

from __future__ import annotations

import json
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnbench.board.bands import FILE, FOLDER, write_seed_bands
from bnbench.sinks.tensorboard.tabs import BANDS, BY_BATCH_SIZE
from bnbench.store import ExperimentFolder, RunFolder
from tests.runs import a_result, seal_again


def read(study: ExperimentFolder, name: str) -> EventAccumulator:
    """A band as TensorBoard reads it."""
    accumulator = EventAccumulator(str(study.path / "seed-bands" / name))
    accumulator.Reload()
    return accumulator


def values(found: EventAccumulator, tag: str) -> dict[int, float]:
    """Values by step."""
    return {event.step: event.value for event in found.Scalars(tag)}


def names(study: ExperimentFolder) -> list[str]:
    """The runs below `seed-bands`."""
    root = study.path / "seed-bands"
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("*tfevents*"))


def invent(run: RunFolder, accuracies: dict[int, float]) -> None:
    """Give a run these validation accuracies."""
    template = next(r for r in run.records() if r["event"] == "eval" and r["split"] == "val")
    lines = [
        template | {"stats": "running", "examples": step, "step": step, "accuracy": value}
        for step, value in accuracies.items()
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    seal_again(run)


def test_diverged_seeds_are_left_out_and_said(own_study: ExperimentFolder) -> None:
    assert write_seed_bands(own_study) == [
        "wild_bs004: no mean, without 2 diverged",
        "wild_bs016: no mean, without 2 diverged",
    ]
    assert names(own_study) == [
        "bn_bs004",
        "bn_bs016",
        "by-batch-size/bn",
        "by-batch-size/gn",
        "gn_bs004",
        "gn_bs016",
    ]


def test_one_diverged_and_one_unfinished_seed(own_study: ExperimentFolder) -> None:
    first, second, third, *_ = own_study.runs()
    first.finish(a_result(state="diverged", step=3, reason="invented"))
    (third.path / "result.json").unlink()
    said = write_seed_bands(own_study)
    assert said[:2] == [
        "bn_bs004: the mean of 1 seed, without 1 diverged",
        "bn_bs016: the mean of 1 seed, without 1 interrupted",
    ]
    found = read(own_study, "bn_bs004")
    (text,) = found.Tensors("seed_bands")
    assert text.tensor_proto.string_val[0].decode() == (
        "Mean of the completed seeds (1); band: its 95 % interval, from 3 seeds on. "
        "Not in it: 1 diverged."
    )
    curve = {
        r["examples"]: r["accuracy"]
        for r in second.records()
        if r["event"] == "eval" and (r["split"], r["stats"]) == ("val", "running")
    }
    for tag in (BANDS[0].tag, BANDS[0].lower, BANDS[0].upper):
        assert values(found, tag) == pytest.approx(curve), "one seed has a line and no band"


def one_seed_more(run: RunFolder) -> RunFolder:
    """A copy of a run, said to be of seed 2."""
    path = run.path.with_name(run.name.replace("_s00_", "_s02_"))
    shutil.copytree(run.path, path)
    copy = RunFolder(path)
    manifest = (copy.manifest() or {}) | {"seed": 2}
    (path / "manifest.json").write_text(json.dumps(manifest))
    seal_again(copy)
    return copy


def test_a_band_is_within_what_is_possible_and_of_shared_points(
    own_study: ExperimentFolder,
) -> None:
    first, second, *_ = own_study.runs()
    third = one_seed_more(first)
    invent(first, {32: 0.75, 64: 0.50, 96: 0.0})
    invent(second, {32: 0.75, 64: 0.52, 128: 1.0})
    invent(third, {32: 0.75, 64: 0.51})
    write_seed_bands(own_study)
    found = read(own_study, "bn_bs004")
    band = BANDS[0]
    assert values(found, band.tag) == pytest.approx({32: 0.75, 64: 0.51})
    # t at 97.5 % with two degrees of freedom, 4.302653, times 0.01/√3, is 0.0248414. On the logit
    # scale 0.0400053 ± 0.0248414/(0.51·0.49) = 0.0994054: −0.0594001 and 0.1394107.
    assert values(found, band.lower) == pytest.approx({32: 0.75, 64: 0.4851543}, abs=1e-6)
    assert values(found, band.upper) == pytest.approx({32: 0.75, 64: 0.5347963}, abs=1e-6)
    invent(third, {64: 0.999})
    write_seed_bands(own_study)
    found = read(own_study, "bn_bs004")
    assert 0 < values(found, band.lower)[64] < values(found, band.upper)[64] < 1


def test_two_seeds_have_a_line_and_no_band(own_study: ExperimentFolder) -> None:
    first, second, *_ = own_study.runs()
    invent(first, {64: 0.5})
    invent(second, {64: 0.9})
    write_seed_bands(own_study)
    found = read(own_study, "bn_bs004")
    for tag in (BANDS[0].tag, BANDS[0].lower, BANDS[0].upper):
        assert values(found, tag) == pytest.approx({64: 0.7})


def test_what_is_not_finite_is_no_point(own_study: ExperimentFolder) -> None:
    first, second, *_ = own_study.runs()
    lost = {32: float("inf"), 64: 0.5}
    invent(first, lost)
    lines = (first.path / "metrics.jsonl").read_text().replace("Infinity", "null")
    (first.path / "metrics.jsonl").write_text(
        lines.replace('"accuracy": null', '"accuracy": null, "finite": false')
    )
    seal_again(first)
    invent(second, {32: 0.5, 64: 0.5})
    write_seed_bands(own_study)
    assert values(read(own_study, "bn_bs004"), BANDS[0].tag) == {64: 0.5}


def test_bands_of_earlier_times_go_away(own_study: ExperimentFolder) -> None:
    for run in own_study.runs():
        if "_bs016_" in run.name:
            shutil.rmtree(run.path)
    write_seed_bands(own_study)
    assert names(own_study) == ["bn_bs004", "gn_bs004"], "one batch size has no axis"


def test_cells_that_share_a_name_are_kept_apart(own_study: ExperimentFolder) -> None:
    third, fourth = own_study.runs()[2:4]
    for run in (third, fourth):
        manifest = run.manifest() or {}
        manifest["cell"] = "bn_bs004_12345678"
        (run.path / "manifest.json").write_text(json.dumps(manifest))
        seal_again(run)
    write_seed_bands(own_study)
    found = names(own_study)
    assert {"bn_bs004_bs004", "bn_bs004_bs016"} <= set(found), "named by what differs"
    assert "bn_bs004" not in found


def test_a_damaged_run_is_in_no_band(own_study: ExperimentFolder) -> None:
    first = own_study.runs()[0]
    (first.path / "metrics.jsonl").write_text("{\n")
    before = (own_study.path / FOLDER / "bn_bs004" / FILE).read_bytes()
    assert not any(first.name in line for line in write_seed_bands(own_study)), "rebuild tells it"
    assert (own_study.path / FOLDER / "bn_bs004" / FILE).read_bytes() != before


def test_accuracy_by_batch_size_is_a_run_for_each_setup(own_study: ExperimentFolder) -> None:
    found = read(own_study, "by-batch-size/bn")
    assert sorted(found.Tags()["scalars"]) == sorted(
        [BY_BATCH_SIZE.tag, BY_BATCH_SIZE.lower, BY_BATCH_SIZE.upper]
    )
    assert list(values(found, BY_BATCH_SIZE.tag)) == [4, 16]
