"""What TensorBoard's own server answers about a finished experiment, through both of its loaders.

Its web application is asked without a socket (the faster loader is a process of its own).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from tensorboard.plugins.hparams.api_pb2 import AGGREGATION_AVG

from bnbench.sinks.tensorboard.tabs import BANDS, BY_BATCH_SIZE, METRICS, Band
from bnbench.stats.differences import mean
from bnbench.store import ExperimentFolder, RunFolder
from tests.board.asked import Asked
from tests.runs import result_of
from tests.studies import DIVERGING, QUESTION, RESUMED


@pytest.fixture(scope="module", params=["slow", "fast"])
def asked(study: ExperimentFolder, request: pytest.FixtureRequest) -> Iterator[Asked]:
    """The study in TensorBoard, through one of its loaders."""
    with closing(Asked(study.path, request.param)) as found:
        yield found


def named(study: ExperimentFolder, beginning: str) -> RunFolder:
    """The run of this name."""
    (run,) = [run for run in study.runs() if run.name.startswith(beginning)]
    return run


def readings(run: RunFolder, stats: str) -> dict[int, float]:
    """Validation accuracies by images seen, from the events themselves."""
    return {
        record["examples"]: record["accuracy"]
        for record in run.records()
        if (record["event"], record.get("split"), record.get("stats")) == ("eval", "val", stats)
    }


CELLS = ["bn_bs004", "bn_bs016", "gn_bs004", "gn_bs016"]
BAND_RUNS = {f"seed-bands/{name}" for name in (*CELLS, "by-batch-size/bn", "by-batch-size/gn")}


def test_every_tab_has_something(asked: Asked) -> None:
    listing = asked.get("plugins_listing")
    active = {name for name, plugin in listing.items() if plugin["enabled"]}
    assert {"timeseries", "scalars", "custom_scalars", "images", "text", "hparams"} <= active
    assert "histograms" in active


def test_there_are_no_runs_but_the_runs_and_the_bands(
    asked: Asked, study: ExperimentFolder
) -> None:
    runs = asked.get("runs")
    assert len(runs) == len(set(runs))
    assert set(runs) == {run.name for run in study.runs()} | BAND_RUNS
    assert len(study.runs()) == 12


def test_tags_group_well(asked: Asked, study: ExperimentFolder) -> None:
    tags = asked.get("plugin/timeseries/tags")
    of_run = tags["scalars"]["runTagInfo"][named(study, RESUMED).name]
    groups = {tag.split("/")[0] for tag in of_run}
    assert groups == {"accuracy", "gap", "loss", "lr", "progress", "summary"}
    assert set(METRICS) <= set(of_run)
    images = set(tags["images"]["tagDescriptions"])
    assert images == {"images/first_batch", "images/confusion_test"}
    of_run = tags["histograms"]["runTagInfo"][named(study, RESUMED).name]
    spread = {tag.split("/")[0] for tag in of_run}
    state = ("weight", "bias", "running_mean", "running_var", "input")
    assert spread == {f"histogram_{name}" for name in state}


def test_a_resumed_run_states_each_evaluation_once(asked: Asked, study: ExperimentFolder) -> None:
    run = named(study, RESUMED)
    assert (run.manifest() or {})["attempts"] == 2
    answer = asked.get("plugin/scalars/scalars", run=run.name, tag="accuracy/val_running")
    assert {step: value for _, step, value in answer} == pytest.approx(readings(run, "running"))
    assert len(answer) == len(readings(run, "running")) == 2


# --- the HParams tab ----------------------------------------------------------------------------

ALL = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def test_the_columns_are_the_setup_and_what_is_swept(asked: Asked) -> None:
    experiment = asked.post("plugin/hparams/experiment", experimentName="")
    columns = {info["name"]: info for info in experiment["hparamInfos"]}
    assert {name: info["differs"] for name, info in columns.items()} == {
        "setup": True,
        "data.batch_size": True,
    }
    assert columns["data.batch_size"]["displayName"] == "batch size"
    assert columns["data.batch_size"]["domainDiscrete"] == [4, 16]
    assert columns["setup"]["domainDiscrete"] == ["bn", "gn", "wild"]
    tags = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert tags == list(METRICS)


def groups(asked: Asked) -> list[Any]:
    """The rows of the table."""
    answer = asked.post(
        "plugin/hparams/session_groups",
        experimentName="",
        allowedStatuses=ALL,
        colParams=[],
        startIndex=0,
        sliceSize=100,
        aggregationType=AGGREGATION_AVG,
    )
    return cast(list[Any], answer["sessionGroups"])


def values(found: Any) -> dict[str, float]:
    """Metrics by tag."""
    return {metric["name"]["tag"]: metric["value"] for metric in found["metricValues"]}


def test_a_row_is_a_cell_and_averages_its_seeds(asked: Asked, study: ExperimentFolder) -> None:
    rows = {row["name"]: row for row in groups(asked)}
    assert sorted(rows) == sorted([*CELLS, "wild_bs004", "wild_bs016"])
    sessions = [session["name"] for row in rows.values() for session in row["sessions"]]
    assert sorted(sessions) == [run.name for run in study.runs()], "each run once"
    for name, row in rows.items():
        assert len(row["sessions"]) == 2
        assert row["hparams"]["setup"] == name.split("_")[0]
        assert row["hparams"]["data.batch_size"] == int(name[-3:])
        assert "seed" not in row["hparams"]
        if name.startswith(DIVERGING):
            continue
        accuracies = []
        for session in row["sessions"]:
            assert session["status"] == "STATUS_SUCCESS"
            assert values(session).keys() == METRICS.keys(), "no cell is empty"
            result = result_of(study.run(session["name"]))
            accuracies.append(result["test"]["running"]["accuracy"])
            assert values(session)["summary/test_running_accuracy"] == pytest.approx(accuracies[-1])
        assert values(row)["summary/test_running_accuracy"] == pytest.approx(mean(accuracies).value)
        assert values(row)["summary/diverged"] == 0.0


def test_a_diverged_run_is_recognizable(asked: Asked, study: ExperimentFolder) -> None:
    rows = [row for row in groups(asked) if row["name"].startswith(DIVERGING)]
    assert len(rows) == 2
    for session in (session for row in rows for session in row["sessions"]):
        assert session["status"] == "STATUS_FAILURE"
        step = result_of(study.run(session["name"]))["step"]
        assert values(session)["summary/diverged"] == 1.0
        assert "summary/test_running_accuracy" not in values(session)
        answer = asked.get(
            "plugin/scalars/scalars", run=session["name"], tag="summary/diverged_at_step"
        )
        assert [value for _, _, value in answer] == [step]


# --- the Custom Scalars tab ---------------------------------------------------------------------


def test_the_layout_is_one_of_six_charts(asked: Asked) -> None:
    layout = asked.get("plugin/custom_scalars/layout")
    charts = [len(category["chart"]) for category in layout["category"]]
    assert charts == [3, 3], "the same layout in every run is one layout"
    titles = [chart["title"] for category in layout["category"] for chart in category["chart"]]
    assert "test accuracy by batch size (x: step = batch size)" in titles
    for chart in layout["category"][1]["chart"]:
        assert all(regex.endswith("$") for regex in chart["multiline"]["tag"])


def test_training_mode_and_eval_mode_are_in_one_chart(
    asked: Asked, study: ExperimentFolder
) -> None:
    layout = asked.get("plugin/custom_scalars/layout")
    regexes = layout["category"][1]["chart"][0]["multiline"]["tag"]
    run = named(study, "bn_bs004_s00").name
    found: dict[str, Any] = {}
    for regex in regexes:
        answer = asked.get("plugin/custom_scalars/scalars", run=run, tag=regex)
        assert answer["regex_valid"]
        found |= answer["tag_to_events"]
    assert sorted(found) == ["loss/val_batch", "loss/val_running"]
    for band in BAND_RUNS:
        for regex in regexes:
            answer = asked.get("plugin/custom_scalars/scalars", run=band, tag=regex)
            assert not answer["tag_to_events"]


def curves(asked: Asked, run: str, band: Band) -> list[dict[int, float]]:
    """Lower edge, mean and upper edge by step."""
    tags = (band.lower, band.tag, band.upper)
    answer = asked.get(
        "plugin/custom_scalars/scalars", run=run, tag="|".join(f"{t}$" for t in tags)
    )
    return [{step: value for _, step, value in answer["tag_to_events"][tag]} for tag in tags]


@pytest.mark.parametrize("name", CELLS)
def test_a_band_is_mean_and_interval_of_the_seeds(
    asked: Asked, study: ExperimentFolder, name: str
) -> None:
    seeds = [readings(named(study, f"{name}_s{seed:02d}"), "running") for seed in (0, 1)]
    lower, middle, upper = curves(asked, f"seed-bands/{name}", BANDS[0])
    assert list(middle) == sorted(seeds[0])
    for step, value in middle.items():
        first, second = (seed[step] for seed in seeds)
        assert value == pytest.approx((first + second) / 2)
        assert lower[step] == upper[step] == value, "two seeds are lines of their own"


def test_accuracy_by_batch_size_has_the_batch_size_for_its_step(
    asked: Asked, study: ExperimentFolder
) -> None:
    _, middle, _ = curves(asked, "seed-bands/by-batch-size/gn", BY_BATCH_SIZE)
    expected = {}
    for size in (4, 16):
        runs = [named(study, f"gn_bs{size:03d}_s{seed:02d}") for seed in (0, 1)]
        accuracies = [result_of(run)["test"]["running"]["accuracy"] for run in runs]
        expected[size] = sum(accuracies) / 2
    assert middle == pytest.approx(expected)


# --- the Text tab -------------------------------------------------------------------------------


def test_the_cards_say_what_it_is(asked: Asked, study: ExperimentFolder) -> None:
    tags = asked.get("plugin/text/tags")
    run = named(study, "gn_bs016_s01").name
    assert sorted(tags[run]) == ["about", "configuration"]
    (about,) = asked.get("plugin/text/text", run=run, tag="about")
    assert QUESTION in about["text"]
    assert "Step = images seen" in about["text"]
    for setup in ("bn", "gn", "wild"):
        assert f"<th>{setup}</th>" in about["text"]
    (configuration,) = asked.get("plugin/text/text", run=run, tag="configuration")
    assert "batch_size: 16" in configuration["text"]
    (band,) = asked.get("plugin/text/text", run="seed-bands/gn_bs016", tag="seed_bands")
    assert "Mean of the completed seeds (0, 1)" in band["text"]


def test_an_image_is_served(asked: Asked, study: ExperimentFolder) -> None:
    run = named(study, "bn_bs004_s00").name
    (entry,) = asked.get("plugin/images/images", run=run, tag="images/confusion_test", sample="0")
    assert entry["step"] == 128


# --- logs that are not as they should be --------------------------------------------------------


@pytest.mark.parametrize("loader", ["slow", "fast"])
def test_a_torn_and_a_damaged_file_are_shown_as_far_as_they_go(
    own_study: ExperimentFolder, loader: str
) -> None:
    torn, damaged, *_ = own_study.runs()
    shutil.rmtree(own_study.path / "seed-bands")
    path = torn.views()[-1]
    path.write_bytes(path.read_bytes()[:-9])
    path = damaged.views()[-1]
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(content)
    with closing(Asked(own_study.path, loader)) as found:
        assert len(groups(found)) == 6
        for run in (torn, damaged):
            answer = found.get("plugin/scalars/scalars", run=run.name, tag="accuracy/val_running")
            steps = [step for _, step, _ in answer]
            assert steps == sorted(readings(run, "running"))[: len(steps)]
            assert steps
