"""A folder knows its study: what continues it, what is refused, and both in one folder."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bnbench import cli
from bnbench.config import files, identity, loading, plans
from bnbench.errors import UsageError
from bnbench.report.reading import choose_study, read_study
from bnbench.report.writing import make, write
from bnbench.store import ExperimentFolder
from bnbench.sweeps import experiments, studies
from tests.report.invented import Told, invented, write_run
from tests.runs import MANIFEST, SMALL_YAML

BASE = "question: Which?\nsetups: {bn: {}, none: {norm: {kind: none}}}\nseeds: 2\n"
SWEPT = BASE + "axes: {optim.lr: [0.1, 0.2]}\n"
PROFILES = (
    BASE + "profiles: {quick: {seeds: 1, train: {epochs: 1}}, full: {axes: {optim.lr: [0.1]}}}\n"
)


def swept(path: Path, text: str, *sets: str) -> ExperimentFolder:
    """A study of which every run has a result."""
    path.mkdir(exist_ok=True)
    return invented(path, SMALL_YAML + text, lambda config: Told(test=config.optim.lr), *sets)


def sweep(
    path: Path, text: str | None = None, *, into: bool = False, **overrides: Any
) -> ExperimentFolder:
    """Where `bnbench sweep` of the file, or of another text, puts it."""
    if text is not None:
        (path / "x.yaml").write_text(SMALL_YAML + text)
    (planned,) = experiments.plan_all(
        str(path / "x.yaml"),
        loading.Overrides(**overrides),
        max_runs=100,
        runs_dir=path / "runs",
        say=lambda _: None,
        into=into,
    )
    return planned.folder


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BASE, BASE),
        (BASE, BASE.replace("seeds: 2", "seeds: 5")),
        (BASE, BASE.replace("seeds: 2", "seeds: [1, 7]")),
        (BASE, BASE.replace("bn: {}, ", "")),
        (BASE, BASE.replace("bn: {}", "bn: {}, gn: {norm: {kind: group, groups: 2}}")),
        (BASE, BASE.replace("bn: {}", "gn: {norm: {kind: group, groups: 2}}")),
        (BASE, BASE.replace("bn", "batch")),
        (BASE, "setups: {none: {norm: {kind: none}}, bn: {}}\nseeds: 2\n"),
        (BASE, BASE.replace("Which?", "Which one is better?")),
        (BASE, BASE + "set: {train.log_every: 3, train.evaluations: 7, compute.threads: 1}\n"),
        (BASE, BASE + "optim: {lr: 0.1}\n"),
        (BASE, SWEPT),
        (SWEPT, SWEPT.replace("[0.1, 0.2]", "[0.2, 0.4]")),
        (SWEPT, SWEPT.replace("[0.1, 0.2]", "[0.3, 0.4]")),
        (SWEPT, BASE),
        (SWEPT, BASE + "optim: {lr: 0.3}\n"),
        (BASE, BASE + "axes: {optim.lr: [0.2, 0.3]}\n"),
        (
            SWEPT.replace("bn: {}", "bn: {axes: {optim.lr: [0.3]}}"),
            SWEPT.replace("bn: {}", "bn: {axes: {optim.lr: [0.4]}}"),
        ),
        (BASE, PROFILES.replace(", train: {epochs: 1}", "")),
        ("seeds: 2\n", "seeds: 3\n"),
        (
            "axes: {norm.kind: [none, batch]}\n",
            "axes: {norm.kind: [none, group], norm.groups: [2]}\n",
        ),
    ],
)
def test_what_continues_a_study(tmp_path: Path, before: str, after: str) -> None:
    folder = swept(tmp_path, before)
    kept = folder.file.read_bytes()
    assert sweep(tmp_path, after) == folder
    assert folder.file.read_bytes() == kept, "nothing is written yet"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (BASE, BASE + "optim: {lr: 0.3}\n", "optim.lr: 0.1 in the folder, 0.3 given"),
        (BASE, BASE.replace("bn: {}", "bn: {norm: {placement: after}}"), "norm.placement: before"),
        (BASE, BASE.replace("bn: {}", "bn: {norm: {placement: after}}"), "(setup bn)"),
        (BASE, BASE.replace("bn: {}", "gn: {}") + "optim: {lr: 0.3}\n", "optim.lr: 0.1"),
        (BASE, "setups: {gn: {norm: {kind: group, groups: 2}}}\n", "setups: bn, none in the fol"),
        (
            BASE,
            "question: How?\nsetups: {bn: {}, gn: {norm: {kind: group, groups: 2}}}\n",
            'question: "Which?" in the folder, "How?" given',
        ),
        ("seeds: 2\n", "seeds: 2\nnorm: {kind: none}\n", "norm.kind: batch in the folder, none"),
        (BASE, BASE.replace("bn: {}", "bn: {data: {batch_size: 4}}"), "data.batch_size: 8"),
    ],
)
def test_what_is_another_study(tmp_path: Path, before: str, after: str, words: str) -> None:
    folder = swept(tmp_path, before)
    kept = folder.file.read_bytes()
    with pytest.raises(UsageError) as refused:
        sweep(tmp_path, after)
    assert words in str(refused.value)
    assert "seed: " not in str(refused.value)
    assert "--set experiment=NAME" in str(refused.value)
    assert "--into" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3
    assert folder.file.read_bytes() == kept
    both = sweep(tmp_path, after, into=True)
    assert (both.path, both.study) == (folder.path, 2)
    assert sweep(tmp_path, before) == folder
    other = sweep(tmp_path, after, set=("experiment=other",))
    assert other == ExperimentFolder(tmp_path / "runs" / "other")


def test_an_override_is_another_study_as_an_edit_is(tmp_path: Path) -> None:
    folder = swept(tmp_path, BASE)
    with pytest.raises(UsageError, match=r"optim.lr: 0.1 in the folder, 0.3 given"):
        sweep(tmp_path, set=("optim.lr=0.3",))
    assert sweep(tmp_path, set=("train.log_every=1",), seeds=7) == folder
    assert sweep(tmp_path, over=("optim.lr=0.1,0.3",)) == folder
    swept(tmp_path / "other", SWEPT)
    with pytest.raises(UsageError, match=r"optim.lr: 0.[12] in the folder, 0.3 given"):
        sweep(tmp_path / "other", set=("optim.lr=0.3",))


@pytest.mark.parametrize("names", [("quick", "full"), ("full", "quick")])
def test_profiles_are_sizes_of_one_study(tmp_path: Path, names: tuple[str, str]) -> None:
    first, second = (f"profile={name}" for name in names)
    folder = swept(tmp_path, PROFILES, first)
    assert sweep(tmp_path, set=(second,)) == folder
    with pytest.raises(UsageError, match=r"optim\.momentum"):
        sweep(tmp_path, set=(second, "optim.momentum=0.5"))


def test_the_shipped_profiles_are_sizes_of_one_study(tmp_path: Path) -> None:
    seen = 0
    for name, file, _ in files.shipped():
        known = list((loading.load_experiment(file).source.data or {}).get("profiles", ()))
        for old, new in permutations(known, 2):
            overrides = loading.Overrides(set=(f"profile={old}",))
            experiment = loading.load_experiment(file, overrides)
            folder = ExperimentFolder(tmp_path / f"{old}-{new}" / experiment.name)
            folder.begin(files.dump_experiment(experiment))
            for config in plans.expand(experiment).runs[:9]:
                run = folder.run(identity.run_id(config))
                run.begin(config_text="", manifest={})
                run.fail({"message": "it has begun"})
            (planned,) = experiments.plan_all(
                str(file),
                loading.Overrides(set=(f"profile={new}",)),
                max_runs=10_000,
                runs_dir=folder.path.parent,
                say=lambda _: None,
            )
            assert planned.folder == folder, name
            seen += 1
    assert seen >= 14, "seven files of claims with two profiles"


@pytest.mark.parametrize("state", ["failed", "interrupted", "diverged"])
def test_runs_that_have_begun_count(tmp_path: Path, state: str) -> None:
    invented(tmp_path, SMALL_YAML + BASE, lambda _: Told(state=state))
    with pytest.raises(UsageError, match="would be in no report"):
        sweep(tmp_path, set=("optim.lr=0.3",))


def test_a_study_of_which_nothing_has_begun_is_replaced(tmp_path: Path) -> None:
    folder = invented(tmp_path, SMALL_YAML + BASE, lambda _: None)
    for config in plans.expand(loading.load_experiment(folder.file)).runs:
        run = folder.run(identity.run_id(config))
        run.begin(config_text=files.dump(config), manifest=MANIFEST)
    assert len(folder.runs()) == 4
    assert sweep(tmp_path, set=("optim.lr=0.3",)) == folder


def test_single_runs_do_not_make_a_study(tmp_path: Path) -> None:
    folder = swept(tmp_path, "seeds: 1\n")
    folder.file.unlink()
    assert sweep(tmp_path, "seeds: 1\noptim: {lr: 0.3}\n") == folder


LISTS = st.lists(st.sampled_from([4, 8, 16]), min_size=1, max_size=3, unique=True)
SETUPS = st.sets(st.sampled_from(["none", "bn", "gn"]))
PARTS = {
    "none": "none: {norm: {kind: none}}",
    "bn": "bn: {norm: {kind: batch}}",
    "gn": "gn: {norm: {kind: group, groups: 2}}",
    "rms": "rms: {norm: {kind: rms}}",
}


def text_of(setups: set[str], sizes: list[int], seeds: int, changed: str | None) -> str:
    """A study of setups, batch sizes and seeds; of the base, one key is another."""
    parts = ", ".join(PARTS[name] for name in sorted(setups | {"rms"}))
    values = {"optim": {"lr": 0.1}, "train": {"epochs": 2.0}, "model": {"widths": [4, 8]}}
    others = {"optim": {"lr": 0.2}, "train": {"epochs": 3.0}, "model": {"widths": [4, 4]}}
    base = {key: others[key] if key == changed else value for key, value in values.items()}
    blocks = "".join(f"{key}: {json.dumps(value)}\n" for key, value in base.items())
    small = "".join(SMALL_YAML.partition("model:")[:1])
    return (
        f"{small}{blocks}setups: {{{parts}}}\naxes: {{data.batch_size: {sizes}}}\nseeds: {seeds}\n"
    )


@settings(max_examples=10)
@given(
    SETUPS, SETUPS, LISTS, LISTS, st.integers(1, 3), st.integers(1, 3),
    st.sampled_from([None, "optim", "train", "model"]),
)  # fmt: skip
def test_only_another_base_is_refused_and_no_run_is_without_a_name(
    before: set[str], after: set[str], old: list[int], new: list[int],
    seeds: int, more: int, changed: str | None,
) -> None:  # fmt: skip
    with TemporaryDirectory() as name:
        path = Path(name)
        folder = invented(path, text_of(before, old, seeds, None), lambda _: Told())
        (path / "x.yaml").write_text(text_of(after, new, more, changed))
        if changed is not None:
            with pytest.raises(UsageError, match=f"{changed}\\."):
                sweep(path)
            assert sweep(path, into=True).study == 2
            return
        assert sweep(path) == folder
        experiment = loading.load_experiment(path / "x.yaml")
        folder.begin(files.dump_experiment(experiment))
        write_run(plans.expand(experiment).runs[0], folder, Told())
        study = read_study(folder)
        named = {run.name for run in study.runs} | {each.folder.name for each in study.others}
        assert {run.name for run in folder.runs()} <= named
        assert all(each.reason and each.called for each in study.others)


def test_two_studies_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = swept(tmp_path, BASE)
    second = sweep(tmp_path, BASE.replace("Which?", "How?") + "optim: {lr: 0.3}\n", into=True)
    experiment = loading.load_experiment(tmp_path / "x.yaml")
    second.begin(files.dump_experiment(experiment))
    for config in plans.expand(experiment).runs:
        write_run(config, second, Told(test=config.optim.lr))
    assert [each.study for each in folder.studies()] == [1, 2]
    # Each goes on as itself, with or without the option.
    assert sweep(tmp_path, seeds=5) == second
    assert sweep(tmp_path, seeds=5, into=True) == second
    assert sweep(tmp_path, set=("optim.lr=0.1", "question=Which?")) == folder
    assert sweep(tmp_path, set=("optim.lr=0.7",), into=True).study == 3
    with pytest.raises(UsageError) as several:
        choose_study(folder, None)
    assert "holds the studies 1 (Which?), 2 (How?)" in str(several.value)
    result = CliRunner().invoke(cli.app, ["report", str(folder.path)])
    assert result.exit_code == 2
    for number, accuracy in ((1, 0.1), (2, 0.3)):
        study = read_study(choose_study(folder, number))
        assert {run.metric("test_accuracy") for run in study.runs} == {accuracy}
        assert len(study.others) == 4
        write(study, make(study))
    place = folder.path / "study-2"
    assert {"experiment.yaml", "report.html", "report.json", "figures"} <= {
        each.name for each in place.iterdir()
    }
    record = json.loads((place / "report.json").read_text())
    assert all((place / run["path"]).is_dir() for run in record["runs"])
    assert record["experiment"]["question"] == "How?"
    assert json.loads((folder.path / "report.json").read_text())["experiment"]["question"] == (
        "Which?"
    )
    with pytest.raises(UsageError, match="holds the studies 1"):
        choose_study(folder, 3)


def test_only_one_study_needs_no_number(tmp_path: Path) -> None:
    folder = swept(tmp_path, BASE)
    assert choose_study(folder, None) == choose_study(folder, 1) == folder
    folder.file.unlink()
    assert choose_study(folder, None) == folder
    with pytest.raises(UsageError, match="single runs"):
        choose_study(folder, 1)


def test_a_faulty_file_of_the_experiment_is_set_aside(tmp_path: Path) -> None:
    folder = swept(tmp_path, BASE)
    for number, content in ((1, b"setups: ["), (2, b"\xff"), (3, b"setups: [")):
        folder.file.write_bytes(content)
        experiment = loading.load_experiment(tmp_path / "x.yaml")
        said: list[str] = []
        studies.begin(experiment, sweep(tmp_path), said.append)
        (line,) = said
        name = f"experiment.yaml.damaged-{number}"
        assert line.startswith(f"{folder.file} cannot be read, and is renamed to {name}: ")
        assert (folder.path / name).read_bytes() == content
        assert folder.content() == files.dump_experiment(experiment).encode()
    studies.begin(experiment, sweep(tmp_path, BASE.replace("seeds: 2", "seeds: 3")), said.append)
    assert len(said) == 1, "a file that can be read is replaced as ever"


@pytest.mark.parametrize(
    ("seeds", "claims", "needed"), [(2, 1, 6), (6, 4, 7), (6, 3, 0), (2, 0, 0)]
)
def test_claims_that_no_seed_count_of_the_file_can_decide_are_said_before_the_first_run(
    tmp_path: Path, seeds: int, claims: int, needed: int
) -> None:
    each = "{id: c%d, says: s, metric: test/running/accuracy, better: bn, worse: none}"
    listed = ", ".join(each % number for number in range(claims))
    text = BASE.replace("seeds: 2", f"seeds: {seeds}") + f"claims: [{listed}]\n"
    (tmp_path / "x.yaml").write_text(SMALL_YAML + text)
    said: list[str] = []
    file, runs = str(tmp_path / "x.yaml"), tmp_path / "runs"
    experiments.plan_all(file, loading.Overrides(), max_runs=100, runs_dir=runs, say=said.append)
    told = [line for line in said if "are needed" in line]
    assert len(told) == bool(needed)
    assert all(f"{needed} are needed" in line and f"seeds: {needed}" in line for line in told)
    assert not runs.exists()
