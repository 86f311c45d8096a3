"""README names every kind, every room and every key of its example as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bnbench
from bnbench.config import expand, load_experiment
from bnbench.config.keys import BLOCKS
from tests.test_architecture import PACKAGE, ROOMS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


@pytest.mark.parametrize("block", ["norm", "model"])
def test_every_kind_has_a_row_of_a_table(block: str) -> None:
    first_cells = re.findall(r"^\| ([^|]*) \|", README, re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    assert set(BLOCKS[block].kinds) <= named


def test_every_probe_has_a_row_of_a_table() -> None:
    first_cells = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert set(BLOCKS["probes"].all_keys) <= set(first_cells)


def test_every_dataset_is_named() -> None:
    for name in BLOCKS["data"].kinds:
        assert name in README


def test_the_map_shows_the_rooms_that_there_are() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)/?` \|", README, re.MULTILINE)
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms = {room: level for room, (level, _) in ROOMS.items() if room in there}
    assert {room: int(level) for level, room in rows} == rooms


def test_the_example_of_the_configuration_is_sound(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(experiment: my-study.*?)```", README, re.DOTALL)
    path = tmp_path / "my-study.yaml"
    path.write_text(text)
    # Three setups at 4 batch sizes and 7 rates, one with rates of its own, and 8 seeds.
    assert len(expand(load_experiment(path)).runs) == (3 * 7 + 2) * 4 * 8


def test_the_package_lists_its_rooms_in_the_order_of_the_walk() -> None:
    listed = re.findall(r"^(\w+)  +", bnbench.__doc__ or "", re.MULTILINE)
    rows = re.findall(r"^\| \d \| `(\w+)/?` \|", README, re.MULTILINE)
    assert listed == rows
