from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnbench.config import files, loading, plans, schema


def again(config: schema.RunConfig, folder: Path) -> schema.RunConfig:
    path = folder / "config.yaml"
    path.write_text(files.dump(config), encoding="utf-8")
    return plans.expand(loading.load_experiment(path)).only()


def test_setups_and_axes_survive(plan: Any, tmp_path: Path) -> None:
    made = plan("{setups: {1e-3 off: , 'null': {norm: {kind: none}}}, axes: {optim.lr: [1, 2]}}")
    for config in made.runs:
        assert again(config, tmp_path) == config


def test_a_changed_norm_drops_the_label(plan: Any) -> None:
    text = files.dump(plan("setups: {bn: }").only())
    assert plan(text).only().setup == "bn"
    assert plan(text, "seed=3").only().setup == "bn"
    assert plan(text, "norm.kind=none").only().setup == "none"
    assert plan(text, over=("optim.lr=1,2",)).runs[0].swept == ("optim.lr",)


TEXT = """\
# A comment worth keeping.
question: "What?"
norm: {eps: 1.0e-3}
setups: {a: , gn: {norm: {kind: group, groups: 2}}}
axes: {optim.lr: {log: [0.1, 1, 3]}}
seeds: 2
tune: {axis: optim.lr}
"""


def dumped_again(experiment: Any, folder: Path) -> Any:
    path = folder / "experiment.yaml"
    path.write_text(files.dump_experiment(experiment), encoding="utf-8")
    return loading.load_experiment(path)


def test_an_experiment_is_kept_verbatim(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT)
    experiment = loading.load_experiment(tmp_path / "mine.yaml")
    assert files.dump_experiment(experiment) == "experiment: mine\n" + TEXT
    (tmp_path / "mine.yaml").write_text("experiment: x\n" + TEXT)
    experiment = loading.load_experiment(tmp_path / "mine.yaml")
    assert files.dump_experiment(experiment) == "experiment: x\n" + TEXT


OWN_AXES = """\
setups:
  a: {}
  b: {norm: {kind: layer}, axes: {optim.lr: {log: [0.1, 10, 3]}}}
axes: {optim.lr: [1, 2], model.blocks: [1, 2]}
"""
CUSTOM = (
    "norm: {kind: custom, target: 'mine.py:Mine', "
    "options: {'1e-3': null, deep: {er: [1, {a: 2.0}, 'off']}, empty: {}, none: []}}"
)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (TEXT, loading.Overrides()),
        ("{seeds: 2}", loading.Overrides()),
        ("", loading.Overrides()),
        ("--- # marked\nseeds: 2\n", loading.Overrides()),
        (
            TEXT,
            loading.Overrides(set=("norm.groups=4", "train={steps: 9}", "question=null"), seeds=3),
        ),
        (TEXT, loading.Overrides(set=("norm.kind=none",), over=("optim.lr=0.1,0.5",), seed=4)),
        (TEXT, loading.Overrides(over=("data.batch_size={log: [2, 8, 3]}",))),
        ("set: {optim.lr: 3}\nseeds: 2", loading.Overrides(set=("optim.momentum=0",))),
        (
            "data: {dataset: mnist, root: a}\nsetups: {b: {data: {root: ../c}}, d: }",
            loading.Overrides(),
        ),
        ("data: {dataset: mnist}\naxes: {data.root: [a, b]}", loading.Overrides()),
        ("data: {dataset: mnist}\nset: {data.root: a}", loading.Overrides()),
        ("", loading.Overrides(set=("data.dataset=mnist", "data.root=a"))),
        (OWN_AXES, loading.Overrides()),
        (OWN_AXES, loading.Overrides(set=("optim.momentum=0.5",))),
        (OWN_AXES, loading.Overrides(over=("norm.eps=0.1,0.2",))),
        (OWN_AXES, loading.Overrides(over=("optim.lr=3,4",), seeds=2)),
        ("{" + CUSTOM + ", seeds: 2}", loading.Overrides()),
        ("setups: {a: {" + CUSTOM + "}, b: }", loading.Overrides()),
        ("{" + CUSTOM + ", axes: {norm.options.deep.er: [1, null, [2]]}}", loading.Overrides()),
        (
            "{" + CUSTOM + ", axes: {norm.target: ['mine.py:Other', 'mine.py:Mine']}}",
            loading.Overrides(),
        ),
        ("set: {norm.kind: custom, norm.target: 'mine.py:Mine'}", loading.Overrides()),
        ("", loading.Overrides(set=("norm={kind: custom, target: 'mine.py:Mine'}",))),
        (
            "",
            loading.Overrides(
                set=("model={kind: custom, target: 'mine.py:Mine', options: {a: {}}}",)
            ),
        ),
    ],
)
def test_a_dumped_experiment_loads_to_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, overrides: loading.Overrides
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("class Mine: ...\nclass Other: ...\n")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "runs").mkdir()
    experiment = loading.load_experiment(tmp_path / "mine.yaml", overrides)
    copied = dumped_again(experiment, tmp_path / "runs")
    assert plans.expand(copied).runs == plans.expand(experiment).runs
    assert plans.expand(copied).grid == plans.expand(experiment).grid
    assert (copied.name, copied.question, copied.tune) == (
        *("mine", experiment.question, experiment.tune),
    )
    # A copy of the copy is the copy: nothing is lost on the way.
    assert (
        plans.expand(dumped_again(copied, tmp_path / "runs")).runs == plans.expand(experiment).runs
    )
