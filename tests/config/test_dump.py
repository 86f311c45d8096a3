from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnbench.config import (
    Overrides,
    RunConfig,
    dump,
    dump_experiment,
    expand,
    expand_one,
    load_experiment,
)
from bnbench.errors import ConfigError


def again(config: RunConfig, folder: Path) -> RunConfig:
    path = folder / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    return expand_one(load_experiment(path))


PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "data.batch_size": st.integers(1, 9000),
        "data.train_size": st.none() | st.integers(10, 9000),
        "data.root": st.text(max_size=8),
        "norm.kind": st.sampled_from(["none", "batch", "layer", "group"]),
        "norm.eps": st.floats(0, exclude_min=True, allow_infinity=False),
        "norm.momentum": st.none() | st.floats(0, 1),
        "model.widths": st.lists(st.integers(1, 10**12).map(lambda n: 4 * n), min_size=1),
        "optim.kind": st.sampled_from(["sgd", "adamw"]),
        "optim.schedule": st.sampled_from(["constant", "cosine", "step"]),
        "train.steps": st.integers(1, 2**63 - 1),
        "train.checkpoint_every": st.sampled_from(["0.5s", "30s", 7, None]),
        "compute.device": st.sampled_from(["cuda:1", "cpu"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    patch=PATCHES,
    seed=st.integers(0, 2**63 - 1),
    setup=st.text(max_size=20),
    question=st.text(max_size=20),
)
def test_a_dumped_run_loads_to_an_equal_run(
    tmp_path_factory: Any, patch: dict[str, Any], seed: int, setup: str, question: str
) -> None:
    folder = tmp_path_factory.mktemp("dump")
    path = folder / "x.yaml"
    from bnbench.config.dump import _inline

    sets = tuple(f"{key}={_inline(value)}" for key, value in patch.items())
    path.write_text(f"setups: {{{_inline('s' + setup)}: }}\nquestion: {_inline(question)}")
    try:
        config = expand_one(load_experiment(path, Overrides(set=sets, seed=seed)))
    except ConfigError as error:
        # Text of control characters, and widths or batches that do not fit; nothing else.
        allowed = ("cannot be printed", "no run has the key", "one value per channel", "larger")
        if all(any(each in str(fault) for each in allowed) for fault in error.faults):
            return
        raise
    assert again(config, folder) == config


def test_setups_and_axes_survive(plan: Any, tmp_path: Path) -> None:
    made = plan("{setups: {1e-3 off: , 'null': {norm: {kind: none}}}, axes: {optim.lr: [1, 2]}}")
    for config in made.runs:
        assert again(config, tmp_path) == config


def test_a_changed_norm_drops_the_label(plan: Any) -> None:
    text = dump(plan("setups: {bn: }").only())
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
    path.write_text(dump_experiment(experiment), encoding="utf-8")
    return load_experiment(path)


def test_an_experiment_is_kept_verbatim(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT)
    experiment = load_experiment(tmp_path / "mine.yaml")
    assert dump_experiment(experiment) == "experiment: mine\n" + TEXT
    (tmp_path / "mine.yaml").write_text("experiment: x\n" + TEXT)
    experiment = load_experiment(tmp_path / "mine.yaml")
    assert dump_experiment(experiment) == "experiment: x\n" + TEXT


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (TEXT, Overrides()),
        ("{seeds: 2}", Overrides()),
        ("", Overrides()),
        ("--- # marked\nseeds: 2\n", Overrides()),
        (TEXT, Overrides(set=("norm.groups=4", "train={steps: 9}", "question=null"), seeds=3)),
        (TEXT, Overrides(set=("norm.kind=none",), over=("optim.lr=0.1,0.5",), seed=4)),
        (TEXT, Overrides(over=("data.batch_size={log: [2, 8, 3]}",))),
        ("set: {optim.lr: 3}\nseeds: 2", Overrides(set=("optim.momentum=0",))),
        ("data: {dataset: mnist, root: a}\nsetups: {b: {data: {root: ../c}}, d: }", Overrides()),
        ("data: {dataset: mnist}\naxes: {data.root: [a, b]}", Overrides()),
        ("data: {dataset: mnist}\nset: {data.root: a}", Overrides()),
        ("", Overrides(set=("data.dataset=mnist", "data.root=a"))),
    ],
)
def test_a_dumped_experiment_loads_to_the_same_plan(
    tmp_path: Path, text: str, overrides: Overrides
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "runs").mkdir()
    experiment = load_experiment(tmp_path / "mine.yaml", overrides)
    copied = dumped_again(experiment, tmp_path / "runs")
    assert expand(copied).runs == expand(experiment).runs
    assert (copied.name, copied.question, copied.tune) == (
        *("mine", experiment.question, experiment.tune),
    )
    # A copy of the copy is the copy: nothing is lost on the way.
    assert expand(dumped_again(copied, tmp_path / "runs")).runs == expand(experiment).runs
