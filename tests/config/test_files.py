from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnbench.config import files, loading, plans, schema
from bnbench.errors import ConfigError


def again(config: schema.RunConfig, folder: Path) -> schema.RunConfig:
    path = folder / "config.yaml"
    path.write_text(files.dump(config), encoding="utf-8")
    return plans.expand_one(loading.load_experiment(path))


PRINTABLE = st.characters(exclude_categories=["C", "Z"])
NAMES = st.text(PRINTABLE, max_size=4).filter(lambda text: text != "<<")
WHOLE = st.integers(1 - 2**63, 2**63 - 1)
PLAIN_VALUES: Any = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PRINTABLE, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
# What a norm's keys may hold; a kind draws those that it has.
OF_NORMS: dict[str, Any] = {
    "placement": st.sampled_from(["before", "after"]),
    "eps": st.floats(0, exclude_min=True, allow_infinity=False),
    "affine": st.booleans(),
    "groups": st.sampled_from([1, 2, 4]),
    "batch_size": st.sampled_from([1, 2, 4]),
    "momentum": st.none() | st.floats(0, 1),
    "r_max": st.floats(1, allow_infinity=False),
    "d_max": st.floats(0, allow_infinity=False),
    "correct_from": st.floats(0, 0.1),
    "r_open": st.floats(0.1, 1),
    "d_open": st.floats(0.1, 1),
    "freeze_after": st.floats(0, 1),
    "target": st.just("mine.py:Mine"),
    "options": st.dictionaries(NAMES, PLAIN_VALUES, max_size=3),
}
OF_MODELS: dict[str, Any] = {
    "widths": st.lists(st.integers(1, 10**12).map(lambda n: 4 * n), min_size=1),
    "blocks": st.integers(1, 99),
    "activation": st.sampled_from(["relu", "gelu"]),
    "init": st.sampled_from(["he", "xavier"]),
    "dropout": st.floats(0, 1, exclude_max=True),
    "depth": st.sampled_from([8, 110]),
    "width": st.sampled_from([8, 16]),
    "variant": st.sampled_from(["post", "pre"]),
    "zero_init_last_norm": st.just(False),
    "fixup": st.booleans(),
    "name": st.sampled_from(["resnet18", "wide_resnet50_2"]),
    "stem": st.sampled_from(["small", "imagenet"]),
    "target": st.just("mine.py:Mine"),
    "options": OF_NORMS["options"],
}


def blocks(name: str, values: dict[str, Any]) -> Any:
    """A block of any kind, with what it requires and some of what it may have of `values`."""

    def of(kind: str) -> Any:
        fields = schema.BLOCKS[name].models[kind].model_fields
        given = {key: values[key] for key in fields if key in values}
        required = {key: value for key, value in given.items() if fields[key].is_required()}
        optional = {key: value for key, value in given.items() if key not in required}
        if kind in ("frn", "evonorm-s0"):
            optional["placement"] = st.just("before")
        return st.fixed_dictionaries({"kind": st.just(kind), **required}, optional=optional)

    return st.sampled_from(schema.BLOCKS[name].kinds).flatmap(of)


PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "data.batch_size": st.integers(1, 2250).map(lambda n: 4 * n),
        "data.train_size": st.none() | st.integers(10, 9000),
        "data.root": st.text(max_size=8),
        "norm": blocks("norm", OF_NORMS),
        "model": blocks("model", OF_MODELS),
        "optim.train_only": st.sampled_from([None, "norm"]),
        "optim.kind": st.sampled_from(["sgd", "adamw"]),
        "optim.schedule": st.sampled_from(["constant", "cosine", "step"]),
        "train.steps": st.integers(1, 2**63 - 1),
        "train.checkpoint_every": st.sampled_from(["0.5s", "30s", 7, None]),
        "compute.device": st.sampled_from(["cuda:1", "cpu"]),
    },
)


@settings(max_examples=120, deadline=None)
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
    target = folder / "mine.py"
    target.write_text("class Mine: ...\n")
    sets = tuple(
        f"{key}={files._inline(value)}".replace("mine.py:Mine", f"{target}:Mine")
        for key, value in patch.items()
    )
    path.write_text(
        f"setups: {{{files._inline('s' + setup)}: }}\nquestion: {files._inline(question)}"
    )
    try:
        config = plans.expand_one(
            loading.load_experiment(path, loading.Overrides(set=sets, seed=seed))
        )
    except ConfigError as error:
        # Text of control characters, and kinds, widths or batches that do not fit; nothing else.
        allowed = (
            *("cannot be printed", "one value per", "is larger than"),
            *("changes more than", "decides itself", "γ and β", "has one weight"),
            "would see no image",
        )
        if all(any(each in str(fault) for each in allowed) for fault in error.faults):
            return
        raise
    assert again(config, folder) == config


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
