"""A file called x.yaml in an empty folder, so that the expected texts can be written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import loading, plans
from bnbench.errors import ConfigError


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., plans.Plan]:
    """Writes x.yaml, loads it with overrides (`--set` by position) and expands it."""
    monkeypatch.chdir(tmp_path)

    def planner(text: str | bytes, *sets: str, **others: Any) -> plans.Plan:
        path = Path("x.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return plans.expand(loading.load_experiment(path, loading.Overrides(sets, **others)))

    return planner


@pytest.fixture
def faults(plan: Callable[..., plans.Plan]) -> Callable[..., str]:
    """The text of the ConfigError that a file causes; called as `plan`."""

    def complainer(text: str | bytes, *sets: str, **others: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            plan(text, *sets, **others)
        return str(caught.value)

    return complainer
