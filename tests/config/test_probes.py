"""Which probes are on: named, true, or nothing written; and what `--set` does inside of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.config import files, identity, loading, plans, schema


def loaded(path: Path, text: str, *sets: str) -> schema.RunConfig:
    (path / "x.yaml").write_text(text)
    return plans.expand(
        loading.load_experiment(path / "x.yaml", loading.Overrides(set=sets))
    ).only()


def test_all_are_off_by_default() -> None:
    assert schema.ProbesConfig().chosen() == {}
    assert schema.ProbesConfig.model_fields


@pytest.mark.parametrize("text", ["landscape: {}", "landscape: true", "landscape: "])
def test_a_probe_that_is_named_is_on(tmp_path: Path, text: str) -> None:
    config = loaded(tmp_path, f"probes:\n  {text}\n  effective_lr: false\n")
    assert config.probes.chosen() == {"landscape": schema.LandscapeProbe()}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (("probes.landscape.every=5",), {"every": 5, "steps": (0.5,)}),
        (("probes.landscape=false",), None),
        (("probes.landscape=true",), {"every": 2, "steps": (0.003, 0.01, 0.03, 0.1, 0.3)}),
        (("probes={landscape: {every: 7}}",), {"every": 7, "steps": (0.5,)}),
    ],
)
def test_overrides(tmp_path: Path, sets: tuple[str, ...], expected: dict[str, Any] | None) -> None:
    text = "probes: {landscape: {every: 3, steps: [0.5]}}"
    chosen = loaded(tmp_path, text, *sets).probes.chosen()
    if expected is None:
        assert chosen == {}
    else:
        found = chosen["landscape"].model_dump()
        assert {key: found[key] for key in expected} == expected


def test_a_resolved_run_reads_back(tmp_path: Path) -> None:
    config = loaded(tmp_path, "probes: {landscape: {every: 3}, batch_noise: true}")
    assert loaded(tmp_path, files.dump(config)) == config


def test_probes_do_not_decide_what_a_run_is(tmp_path: Path) -> None:
    with_probes = loaded(tmp_path, "probes: {landscape: {every: 3}}")
    without = with_probes.model_copy(update={"probes": schema.ProbesConfig()})
    assert identity.identity(with_probes) == identity.identity(without)
