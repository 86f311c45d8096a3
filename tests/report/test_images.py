"""Test images as a sample, too: from bits in run folders to what is said of a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnbench.config import schema
from bnbench.report import words
from bnbench.report.looks import judged
from bnbench.report.paper import as_markdown
from bnbench.report.reading import read_study
from bnbench.report.terminal import terminal
from bnbench.report.writing import make, page
from bnbench.stats.crossed import crossed_interval
from tests.report.invented import Told, invented, recorded

TEXT = """\
setups: {bn: {norm: {kind: batch}}, gn: {norm: {kind: group}}}
axes: {data.batch_size: [16, 64]}
seeds: 6
claims:
  - {id: a, says: s, metric: %s, better: %s, worse: %s, smallest_effect: 1, %s}
"""
IMAGES = 500


def answers(config: schema.RunConfig) -> np.ndarray:
    """Which images are right: gn wrong on the same tenth of them at every seed, bn on one more
    image in each hundred at random."""
    random = np.random.default_rng([config.seed, len(config.setup), config.data.batch_size])
    wrong = random.random(IMAGES) < 0.01
    wrong[:10] |= config.setup == "gn"
    return ~wrong


def told(config: schema.RunConfig) -> Told:
    right = answers(config)
    return Told(test=float(right.mean()), right=right.tolist())


def asked(
    path: Path,
    tell: Callable[[schema.RunConfig], Told] = told,
    metric: str = "test/running/accuracy",
    better: str = "bn@16",
    worse: str = "gn@16",
    rest: str = "direction: up",
) -> Any:
    return read_study(invented(path, TEXT % (metric, better, worse, rest), tell))


def right(study: Any, setup: str, size: int) -> np.ndarray:
    """(seeds, images), in points, as they were invented."""
    runs = [run for run in study.runs if (run.setup, run.config.data.batch_size) == (setup, size)]
    return np.stack([100.0 * answers(run.config) for run in runs])


def test_a_verdict_that_holds_for_these_images_alone_is_said(tmp_path: Path) -> None:
    """Ten images of 500 make the difference at every seed: of such images, 2 ± 1.2 %."""
    study = asked(tmp_path)
    report = make(study)
    (claim,) = report.record["claims"]
    table = right(study, "bn", 16) - right(study, "gn", 16)
    low, high = crossed_interval(table)
    assert low < 1 < high
    assert claim["outcome"] == "supported"
    assert claim["effect"]["over_images"] == {
        "images": 500, "interval": pytest.approx([low, high]), "outcome": "inconclusive"
    }  # fmt: skip
    assert claim["effect"]["over_images"]["interval"][0] < claim["effect"]["interval"][0]
    table_of_claims = as_markdown(report.record)
    alike = claim | {"outcome": "inconclusive"}
    assert words.over_images(alike, always=True)
    assert words.over_images(alike) is None
    alike["effect"] = alike["effect"] | {"interval": claim["effect"]["over_images"]["interval"]}
    assert words.over_images(alike, always=True) is None, "the same interval is not said twice"
    assert "in parentheses takes the images as a sample, too" in table_of_claims
    ends, over = (
        words.interval(each, "points") for each in (claim["effect"]["interval"], [low, high])
    )
    assert f" | {ends} ({over}) | 6 | " in table_of_claims
    said = "supported for these 500 test images alone"
    assert said in " ".join(map(str, terminal(report.record)))
    assert said in page(report)
    assert said in report.record["answer"][0]


CASES = [
    ("test/running/error", "gn@16", "bn@16", "direction: up", [("bn", 16), ("gn", 16)]),
    ("test/batch/accuracy", "gn@16", "bn@16", "direction: down", [("bn", 16), ("gn", 16)]),
    ("test/running/accuracy", "[bn@16, bn@64]", "[gn@16, gn@64]", "direction: up",
     [("bn", 16), ("bn", 64), ("gn", 64), ("gn", 16)]),
]  # fmt: skip


@pytest.mark.parametrize(("metric", "better", "worse", "rest", "sides"), CASES)
def test_the_images_of_every_side_count(
    tmp_path: Path, metric: str, better: str, worse: str, rest: str, sides: list[tuple[str, int]]
) -> None:
    study = asked(tmp_path, told, metric, better, worse, rest)
    (found,) = judged(study)
    assert found.verdict.effect is not None
    parts = [right(study, *side) for side in sides]
    table = sum(sign * part for sign, part in zip((1, -1, 1, -1), parts, strict=False))
    assert isinstance(table, np.ndarray)
    assert table.mean(1).tolist() == pytest.approx(list(found.pairs.values()))
    assert found.verdict.effect.over_images == pytest.approx(crossed_interval(table))


def test_a_slope_over_an_axis_is_one_of_images_as_well(tmp_path: Path) -> None:
    study = asked(tmp_path, told, better="bn", worse="gn", rest="slope_over: data.batch_size")
    (found,) = judged(study)
    slopes = [(right(study, setup, 64) - right(study, setup, 16)) / 2 for setup in ("bn", "gn")]
    assert found.verdict.effect is not None
    table = slopes[0] - slopes[1]
    assert table.mean(1).tolist() == pytest.approx(list(found.pairs.values()))
    assert found.verdict.effect.over_images == pytest.approx(crossed_interval(table))


def test_runs_of_earlier_versions_have_no_such_interval_and_that_is_said_once(
    tmp_path: Path,
) -> None:
    def old(config: schema.RunConfig) -> Told:
        found = told(config)
        found.right = None if config.seed == 2 else found.right
        return found

    record = recorded(asked(tmp_path, old))
    assert record["claims"][0]["effect"]["over_images"] is None
    assert record["claims"][0]["outcome"] == "supported"
    assert "in parentheses" not in as_markdown(record)
    said = [each["text"] for each in record["notices"] if "over seeds and images" in each["text"]]
    assert len(said) == 1
    assert said[0].startswith("1 claim has no interval over seeds and images")


@pytest.mark.parametrize("metric", ["val/running/accuracy", "test/running/loss"])
def test_other_metrics_have_none_and_nothing_is_said(tmp_path: Path, metric: str) -> None:
    record = recorded(asked(tmp_path, told, metric))
    assert record["claims"][0]["effect"]["over_images"] is None
    assert not any("over seeds and images" in each["text"] for each in record["notices"])


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        ("!", "not a bit for each test image"),
        ("gA==", "not a bit for each test image"),
        ("/" * 84, "not a bit for each test image"),  # bits after the last image
        ("A" * 84, "its test images have another accuracy"),
    ],
)
def test_bits_that_are_damaged_are_a_damaged_run(tmp_path: Path, bits: str, why: str) -> None:
    """Also where somebody has sealed them anew; without, as any change of the events."""
    study = asked(tmp_path)
    run = study.folder.run(study.runs[0].name)
    file, result = run.path / "metrics.jsonl", run.path / "result.json"
    lines = file.read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if '"correct"' in line)
    lines[number] = json.dumps(json.loads(lines[number]) | {"bits": bits})
    file.write_text("\n".join(lines) + "\n")
    (found,) = [each for each in read_study(study.folder).runs if each.state == "damaged"]
    assert "changed since the run ended" in str(found.problem)
    record = json.loads(result.read_text())
    del record["seal"]
    result.write_text(json.dumps(record))
    (found,) = [each for each in read_study(study.folder).runs if each.state == "damaged"]
    assert why in str(found.problem)
