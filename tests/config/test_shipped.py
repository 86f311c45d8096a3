from __future__ import annotations

import json
from pathlib import Path

import pytest

from bnbench.config import experiments, files, loading, plans, schema
from bnbench.errors import UsageError
from bnbench.stats.effect import effect
from bnbench.stats.verdict import judge


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    top = tmp_path / "shipped"
    top.mkdir()
    (top / "default.yaml").write_text(
        "# yaml-language-server: $schema=x\n# The defaults, on one page.\nseed: 0\n"
    )
    (top / "batch-size.yaml").write_text("# a comment\nquestion: Which\n  survives?\n")
    (top / "broken.yaml").write_text("a: [")
    monkeypatch.setattr(files, "folder", lambda: top)
    monkeypatch.chdir(tmp_path)
    return top


def test_the_list(folder: Path) -> None:
    assert files.shipped() == [
        ("batch-size", folder / "batch-size.yaml", "Which survives?"),
        ("broken", folder / "broken.yaml", ""),
        ("default", folder / "default.yaml", "The defaults, on one page."),
    ]


@pytest.mark.parametrize(
    "name", ["default", "default.yaml", "configs/default.yaml", "./configs/default.yaml"]
)
def test_names(folder: Path, name: str) -> None:
    assert files.find_config(name) == folder / "default.yaml"


def test_a_file_of_that_name_wins_and_a_folder_does_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    assert files.find_config("default") == folder / "default.yaml"
    (tmp_path / "default.yaml").write_text("")
    assert files.find_config("default.yaml") == Path("default.yaml")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("defalt", "defalt is not there, and no shipped experiment has that name"),
        ("d" * 5000, f"{'d' * 59}… is not there, and no shipped experiment has that name"),
        ("a\0b", "a\\x00b is not there, and no shipped experiment has that name"),
        (".", ". is a folder, not an experiment, and no shipped experiment has that name"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_missing(name: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        files.find_config(name)
    assert caught.value.what == what


@pytest.mark.usefixtures("folder")
def test_the_nearest_comes_first() -> None:
    with pytest.raises(UsageError) as caught:
        files.find_config("batchsize.yaml")
    assert caught.value.do == "shipped experiments: batch-size, broken and default"


def test_the_schema_beside_the_experiments_is_the_current_one() -> None:
    """Made by `scripts/fix`; every experiment names it."""
    folder = files.shipped()[0][1].parent
    assert json.loads((folder / "schema.json").read_text()) == schema.json_schema()
    for _, path, _ in files.shipped():
        named = "../" * (len(path.relative_to(folder).parts) - 1) + "schema.json"
        assert path.read_text().startswith(f"# yaml-language-server: $schema={named}\n")


def test_a_folder_means_all_of_its_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = files.find_configs("claims")
    assert [path.stem for path in claims] == [
        *("batch-size", "covariate-shift", "depth", "faster-convergence"),
        *("higher-learning-rates", "only-norm", "placement", "regularization"),
        *("shifted-images", "speed", "train-vs-inference", "weight-decay"),
    ]
    assert files.find_configs("configs/claims/") == claims
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        (mine / name).write_text("")
    assert files.find_configs("mine") == [Path("mine/a.yaml"), Path("mine/b.yaml")]
    assert files.find_configs("default") == [files.find_config("default")]


@pytest.mark.parametrize("name", [".", "..", "/", "", "configs", "x" * 5000, "\0"])
def test_a_folder_without_experiments_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(UsageError):
        files.find_configs(name)


CLAIMS = [path for name, path, _ in files.shipped() if name.startswith(("claims/", "large/"))]


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_every_shipped_claim_can_be_judged(path: Path) -> None:
    # Ten seeds where more than twelve claims stand in a file, or where eight decided too little.
    for profile, seeds in (("quick", {6}), ("full", {8, 10})):
        experiment = loading.load_experiment(path, loading.Overrides(set=(f"profile={profile}",)))
        assert len(experiment.seeds) in seeds
        assert_can_be_decided(experiment)


@pytest.mark.parametrize(("name", "claims"), [("quickstart", 3), ("batch-size", 2)])
def test_what_a_newcomer_runs_can_decide_its_claims(name: str, claims: int) -> None:
    experiment = loading.load_experiment(files.find_config(name))
    assert len(experiment.claims) == claims
    assert_can_be_decided(experiment)


def test_the_default_run_is_that_of_an_empty_file_but_for_evaluations(tmp_path: Path) -> None:
    empty = tmp_path / "default.yaml"
    empty.write_text("{}\n")
    told, unasked = (
        plans.expand(loading.load_experiment(path)).only().model_dump()
        for path in (files.find_config("default"), empty)
    )
    assert told.pop("train") | {"evaluations": 10} == unasked.pop("train")
    assert told == unasked


def assert_can_be_decided(experiment: experiments.ExperimentConfig) -> None:
    """There are runs for each claim, and as many seeds as can support all of them."""
    assert experiment.claims
    plan = plans.expand(experiment)
    assert not plan.unjudged
    agreed = [
        effect([100.0] * len(experiment.seeds), smallest_effect=1, direction=claim.direction)
        for claim in experiment.claims
    ]
    assert {verdict.outcome for verdict in judge([(each, ()) for each in agreed])} == {"supported"}
