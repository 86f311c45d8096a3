"""`--json` of sweep and status, as programs rely on it: the models below are what runs/README.md
promises. Further keys may come; none of these may go, or change its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bnbench.config import identity, loading, plans
from bnbench.runner.execution import execute
from bnbench.runner.settings import Settings
from bnbench.store import ExperimentFolder
from tests.commands import bnbench
from tests.runs import MANIFEST, a_result, end, write_experiment
from tests.stub import build_stub

Seconds = Field(ge=0.0)
State = Literal["completed", "diverged", "running", "interrupted", "failed", "damaged", "new"]


class Promise(BaseModel):
    """What is written is there, with its type, and nothing that is not written."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Score(Promise):
    loss: float | None
    accuracy: float = Field(ge=0.0, le=1.0)


class Counted(Promise):
    """Of every run with a result."""

    steps: int
    examples: int
    train_seconds: float = Seconds
    evaluation_seconds: float = Seconds
    probe_seconds: float = Seconds
    wall_seconds: float = Seconds
    images_per_second: float = Seconds


class Completed(Counted):
    state: Literal["completed"]
    train: dict[Literal["running", "batch", "population"], Score] = {}
    val: dict[Literal["running", "batch", "population"], Score]
    test: dict[Literal["running", "batch", "population"], Score]


class Diverged(Counted):
    state: Literal["diverged"]
    step: int
    reason: str


class Error(Promise):
    error: str
    message: str
    traceback: str
    of_the_machine: bool
    damaged: bool


class Run(Promise):
    run: str
    state: State
    apart: str
    result: Completed | Diverged | None
    error: Error | None


class Status(Promise):
    version: Literal[1] = Field(alias="schema")
    experiment: str
    path: str
    runs: list[Run]


class ForecastRun(Promise):
    run: str
    setup: str
    point: dict[str, int | float | str | bool | None]
    seed: int
    state: State
    trains: bool
    seconds: float = Seconds
    bytes: int
    measured: bool
    rough: bool
    basis: str


class Forecast(Promise):
    version: Literal[1] = Field(alias="schema")
    experiment: str
    path: str
    workers: int = Field(ge=1)
    seconds: float = Seconds
    bytes: int
    finish: str
    pace: float
    runs: list[ForecastRun]


class Row(BaseModel):
    """Of a sweep; around it are keys of axes, and, with a result, those of `Completed`, flat."""

    model_config = ConfigDict(extra="allow", strict=True)
    version: Literal[1] = Field(alias="schema")
    run: str
    setup: str
    kind: str = Field(alias="norm.kind")
    name: str = Field(alias="norm.name")
    placement: str | None = Field(alias="norm.placement")
    seed: int
    state: State
    reason: str | None = None


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a study whose three runs completed, diverged and failed."""
    place = tmp_path_factory.mktemp("json")
    file = write_experiment(
        place / "study.yaml", "setups: {bn: {}}\naxes: {optim.lr: [0.1, 0.2, 0.3]}\n"
    )
    folder = ExperimentFolder(place / "runs" / "study")
    completed, diverged, failed = plans.expand(loading.load_experiment(file)).runs
    execute(completed, folder, Settings(), build_stub)
    told = a_result(state="diverged", step=3, reason="loss is not finite", scores={})
    execute(diverged, folder, Settings(), build_stub)
    run = folder.run(identity.run_id(diverged))
    text = run.config_text()
    assert text is not None
    end(run, text, told)
    run = folder.run(identity.run_id(failed))
    run.begin(config_text=text, manifest=MANIFEST)
    with run.hold():
        run.fail(Error(error="ValueError", message="no", traceback="no", of_the_machine=False,
                       damaged=False).model_dump())  # fmt: skip
    return file


def said(study: Path, *arguments: str) -> Any:
    """What a command prints, as data."""
    command = bnbench(*arguments, "--runs-dir", str(study.parent / "runs"), "--json")
    assert command.code in (0, 1), command.err
    return json.loads(command.out, parse_constant=pytest.fail)


def test_status(study: Path) -> None:
    one = Status.model_validate(said(study, "status", "study"))
    assert [each.state for each in one.runs] == ["completed", "diverged", "failed"]
    assert TypeAdapter(list[Status]).validate_python(said(study, "status")) == [one]


def test_sweep(study: Path) -> None:
    rows = said(study, "sweep", str(study))
    assert [Row.model_validate(each).state for each in rows] == ["completed", "diverged", "failed"]
    assert [each["optim.lr"] for each in rows] == [0.1, 0.2, 0.3]
    of_status = said(study, "status", "study")["runs"]
    own = {each.alias or key for key, each in Row.model_fields.items()} | {"optim.lr"}
    for row, run in zip(rows, of_status, strict=True):
        flat = dict(flattened({k: v for k, v in (run["result"] or {}).items() if k != "state"}))
        assert {key: row[key] for key in row if key not in own or key in flat} == flat


def flattened(result: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """`test/running/accuracy` and so on."""
    if not isinstance(result, dict):
        return [(prefix[:-1], result)]
    return [pair for key in result for pair in flattened(result[key], f"{prefix}{key}/")]


def test_forecast(study: Path) -> None:
    found = Forecast.model_validate(said(study, "sweep", str(study), "--dry-run"))
    assert [each.trains for each in found.runs] == [False, False, False]


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"path": None}, {"runs": {}}, {"more": 1}, {"experiment": 3}]
)
def test_negative_control_another_shape_is_noticed(study: Path, change: dict[str, Any]) -> None:
    record = said(study, "status", "study")
    Status.model_validate(record)
    with pytest.raises(ValidationError):
        Status.model_validate(record | change)


def test_every_key_is_documented() -> None:
    page = (Path(__file__).parents[2] / "runs" / "README.md").read_text()
    section = page.partition("## For programs\n")[2].partition("\n## ")[0]
    for model in (Completed, Diverged, Error, Run, Status, ForecastRun, Forecast, Row):
        for key, field in model.model_fields.items():
            assert f"`{field.alias or key}`" in section, key
