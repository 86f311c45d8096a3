"""Pictures of probes: what is drawn is what was read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnbench.report.figures import style
from bnbench.report.figures.probes import (
    Probed,
    landscape_bands,
    layer_heat_maps,
    percentile_bands,
    probed,
    reading_curves,
    readings_of,
)
from bnbench.store import RunFolder
from tests.runs import MANIFEST

LOOKS = {setup: style.look(number) for number, setup in enumerate(("bn", "gn", "a", "b"))}


@pytest.fixture(autouse=True)
def _in_our_style() -> Iterator[None]:
    with style.applied():
        yield


def run_with(path: Path, setup: str, readings: dict[tuple[str, str, str], list[Any]]) -> Probed:
    """A run whose probes read these values after 0, 100, 300, … images."""
    folder = path / setup
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"setup": setup}))
    lines: list[dict[str, Any]] = [
        {"event": "step", "step": 1, "examples": 8, "train_seconds": 0.1, "loss": 1.0}
    ]
    for (probe, layer, name), values in readings.items():
        for at, value in zip((0, 100, 300, 400), values, strict=False):
            record: dict[str, Any] = {
                "event": "probe",
                "step": at // 4,
                "examples": at,
                "train_seconds": 0.1,
            }
            record |= {"probe": probe, "layer": layer, "name": name}
            finite = value is not None and np.isfinite(value)
            lines.append(
                record | ({"value": value} if finite else {"value": None, "finite": False})
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return probed(RunFolder(folder))


def drawn(figure: Figure) -> Figure:
    """The figure, after it has really been drawn."""
    figure.savefig(io.BytesIO(), dpi=50)
    return figure


def heights(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata(), dtype=float)]


def test_heat_maps_have_a_row_a_layer_and_a_column_a_reading(tmp_path: Path) -> None:
    one = {
        ("running_error", "b.norm", "mean"): [1.0, 0.5, 0.25],
        ("running_error", "a.norm", "mean"): [4.0, nan, 2.0],
        ("running_error", "network", "mean"): [9.0, 9.0, 9.0],
        ("running_error", "a.norm", "variance"): [7.0, 7.0, 7.0],
    }
    runs = [run_with(tmp_path, "bn", one), run_with(tmp_path, "none", {})]
    figure = drawn(layer_heat_maps(runs, "running_error", "mean", log=True))
    axes, _ = figure.axes  # and the colour bar
    (mesh,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    values = mesh.get_array()
    assert values is not None
    np.testing.assert_array_equal(
        np.ma.filled(values.reshape(2, 3), -1), [[1.0, 0.5, 0.25], [4.0, -1, 2.0]]
    )
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b.norm", "a.norm"]
    assert axes.yaxis_inverted()
    assert axes.get_title(loc="left") == "bn"
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0.25, 4.0)
    assert np.asarray(mesh.get_coordinates())[0, :, 0].tolist() == [0.0, 50.0, 200.0, 300.0]


def test_heat_maps_of_both_signs_are_white_at_zero(tmp_path: Path) -> None:
    readings: dict[tuple[str, str, str], list[Any]] = {
        ("gap_by_layer", "a", "loss"): [-0.5, 0.25],
        ("gap_by_layer", "b", "loss"): [0, 0],
    }
    figure = drawn(layer_heat_maps([run_with(tmp_path, "bn", readings)], "gap_by_layer", "loss"))
    (mesh,) = (each for each in figure.axes[0].collections if isinstance(each, QuadMesh))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-0.5, 0.5)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [None, None], [2.0], [inf, 1.0]])
@pytest.mark.parametrize("log", [False, True])
def test_heat_maps_of_hardly_anything(tmp_path: Path, values: list[Any], log: bool) -> None:
    run = run_with(tmp_path, "bn", {("running_error", "a", "mean"): values})
    drawn(layer_heat_maps([run], "running_error", "mean", log=log))


def test_percentiles_are_those_of_the_last_unit(tmp_path: Path) -> None:
    readings = {
        ("activation_drift", layer, name): [base + shift for shift in (0.0, 1.0, 2.0)]
        for layer, offset in (("a.norm", 10), ("b.norm", 20))
        for name, base in (("p15", offset - 1), ("p50", offset), ("p85", offset + 1))
    }
    readings["activation_drift", "b.conv", "mean_drift"] = [1.0, 1.0, 1.0]
    runs = [run_with(tmp_path, "bn", readings), run_with(tmp_path, "gn", readings)]
    figure = drawn(percentile_bands(runs, LOOKS))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["bn", "gn"]
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["b.norm"] * 2
    middle, low, high = figure.axes[0].lines
    assert heights(middle) == [20, 21, 22]
    assert heights(low) == [19, 20, 21]
    assert heights(high) == [21, 22, 23]
    assert np.asarray(middle.get_xdata()).tolist() == [0, 100, 300]


LANDSCAPE = ("loss", "change", "relative_loss", "relative_change")


def test_landscape_bands_have_both_edges(tmp_path: Path) -> None:
    readings: dict[tuple[str, str, str], list[Any]] = {
        ("landscape", "network", f"{name}_{edge}"): [value, 2 * value]
        for name in LANDSCAPE
        for edge, value in (("min", 1.0), ("max", 3.0))
    }
    readings["landscape", "network", "beta"] = [5.0, 6.0]
    readings["landscape", "network", "relative_beta_w2"] = [7.0, None]
    runs = [run_with(tmp_path, name, readings) for name in ("a", "b")]
    figure = drawn(landscape_bands(runs, LOOKS))
    assert len(figure.axes) == 6
    for axes in (*figure.axes[0:2], *figure.axes[3:5]):
        assert [heights(line) for line in axes.lines[:2]] == [[1.0, 2.0], [3.0, 6.0]]
        assert len(axes.lines) == 4
    assert heights(figure.axes[2].lines[1]) == [5.0, 6.0]
    assert np.isnan(heights(figure.axes[5].lines[0])[1])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_curves_are_the_network_s_or_the_mean_over_layers(tmp_path: Path) -> None:
    run = run_with(
        tmp_path,
        "bn",
        {
            ("running_error", "network", "mean"): [1.0, 2.0],
            ("running_error", "a", "mean"): [5.0, 5.0],
            ("activation_drift", "a.conv", "mean_drift"): [1.0, 2.0],
            ("activation_drift", "a.norm", "mean_drift"): [3.0, 6.0],
        },
    )
    for probe, name, values in (
        ("running_error", "mean", [1.0, 2.0]),
        ("activation_drift", "mean_drift", [2.0, 4.0]),
    ):
        figure = drawn(reading_curves([run], LOOKS, probe, name))
        assert heights(figure.axes[0].lines[0]) == values


def test_a_probe_that_did_not_read_is_an_error_in_words(tmp_path: Path) -> None:
    run = run_with(tmp_path, "bn", {("running_error", "network", "mean"): [1.0]})
    with pytest.raises(ValueError, match="no run has readings of the probe landscape"):
        readings_of([run], "landscape")
    with pytest.raises(ValueError, match="no run has layers with a reading mean"):
        layer_heat_maps([run], "running_error", "mean")
