"""A file called x.yaml in an empty folder, so that the expected texts can be written out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from bnbench.config import loading, plans
from bnbench.errors import ConfigError


class Planner(Protocol):
    def __call__(
        self,
        text: str | bytes,
        *sets: str,
        over: tuple[str, ...] = ...,
        seeds: int | None = ...,
        seed: int | None = ...,
        setup: str | None = ...,
    ) -> plans.Plan: ...


class Complainer(Protocol):
    def __call__(
        self,
        text: str | bytes,
        *sets: str,
        over: tuple[str, ...] = ...,
        seeds: int | None = ...,
        seed: int | None = ...,
        setup: str | None = ...,
    ) -> str: ...


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Writes x.yaml, loads it with overrides and expands it."""
    monkeypatch.chdir(tmp_path)

    def planner(
        text: str | bytes,
        *sets: str,
        over: tuple[str, ...] = (),
        seeds: int | None = None,
        seed: int | None = None,
        setup: str | None = None,
    ) -> plans.Plan:
        path = Path("x.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return plans.expand(
            loading.load_experiment(path, loading.Overrides(sets, over, seeds, seed, setup))
        )

    return planner


@pytest.fixture
def faults(plan: Planner) -> Complainer:
    """The text of the ConfigError that a file causes."""

    def complainer(
        text: str | bytes,
        *sets: str,
        over: tuple[str, ...] = (),
        seeds: int | None = None,
        seed: int | None = None,
        setup: str | None = None,
    ) -> str:
        with pytest.raises(ConfigError) as caught:
            plan(text, *sets, over=over, seeds=seeds, seed=seed, setup=setup)
        return str(caught.value)

    return complainer
