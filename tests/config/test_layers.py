"""What a patch, an axis value and the command line do to the keys below them."""

from __future__ import annotations

from typing import Any

import pytest

from bnbench.config import identity, schema
from bnbench.wording import listing

NORMS = schema.BLOCKS["norm"]
FOUR = """
norm: {eps: 1.0e-3}
setups:
  none: {norm: {kind: none}}
  bn-before: {norm: {kind: batch, placement: before}}
  bn-after: {norm: {kind: batch, placement: after}}
  gn: {norm: {kind: group, groups: 2}}
"""


@pytest.mark.parametrize(
    ("base", "sets", "block", "expected"),
    [
        # a patch merges key by key
        ("{norm: {eps: 0.5}}", ["norm.momentum=0.2"], "norm", {"eps": 0.5, "momentum": 0.2}),
        # a change of kind drops what the new kind lacks and keeps what it has
        ("{norm: {kind: group, groups: 2, eps: 0.5}}", ["norm.kind=batch"], "norm",
         {"kind": "batch", "eps": 0.5, "momentum": 0.1}),
        ("{norm: {placement: after}}", ["norm.kind=none"], "norm", {"kind": "none"}),
        ("{model: {widths: [4, 4], blocks: 3}}", ["model.kind=mlp"], "model",
         {"kind": "mlp", "widths": (4, 4)}),
        ("{data: {dataset: synthetic, noise: 1, batch_size: 8}}", ["data.dataset=mnist"], "data",
         {"dataset": "mnist", "batch_size": 8}),
        ("{data: {dataset: mnist, batch_size: 8}}", ["data.dataset=cifar10"], "data",
         {"dataset": "cifar10", "batch_size": 8}),
        # the order of the arguments does not matter between kind and key
        ("{}", ["norm.groups=2", "norm.kind=group"], "norm", {"kind": "group", "groups": 2}),
        ("{}", ["norm={kind: group, groups: 2}"], "norm", {"kind": "group", "groups": 2}),
        # budgets replace each other
        ("{train: {epochs: 2}}", ["train={steps: 100}"], "train", {"epochs": None, "steps": 100}),
        ("{train: {steps: 2}}", ["train.examples=9"], "train", {"steps": None, "examples": 9}),
        ("{train: {steps: 2}}", ["train.log_every=9"], "train", {"steps": 2, "log_every": 9}),
        ("{}", [], "train", {"epochs": 3.0, "steps": None, "examples": None}),
        # of two values the later wins
        ("{}", ["optim.lr=1", "optim.lr=2"], "optim", {"lr": 2.0}),
        ("{set: {optim.lr: 1, optim.momentum: 0}}", ["optim.lr=2"], "optim",
         {"lr": 2.0, "momentum": 0.0}),
        # an empty block says nothing
        ("{norm: null, probes: }", [], "norm", {"kind": "batch"}),
    ],
)  # fmt: skip
def test_patches(plan: Any, base: str, sets: list[str], block: str, expected: Any) -> None:
    values = getattr(plan(base, *sets).only(), block).model_dump()
    assert {key: values[key] for key in expected} == expected


def test_a_setup_replaces_the_budget_and_the_command_line_replaces_that(plan: Any) -> None:
    text = "{train: {epochs: 2}, setups: {a: {train: {steps: 5}}, b: }}"
    assert [(run.train.epochs, run.train.steps) for run in plan(text).runs] == [
        (None, 5),
        (2.0, None),
    ]
    # Now both setups are the same run.
    assert plan(text, "train.steps=7").only().train.steps == 7


def test_null_and_empty_setups_are_the_base(plan: Any) -> None:
    made = plan("{optim: {lr: 0.5}, setups: {a: null, b: {norm: {}, optim: {momentum: 0}}}}")
    assert [run.optim.lr for run in made.runs] == [0.5, 0.5]
    assert [run.optim.momentum for run in made.runs] == [0.9, 0.0]


def test_a_kind_from_the_command_line_collapses_setups(plan: Any) -> None:
    made = plan(FOUR, "norm.kind=none")
    assert [(run.setup, run.norm.kind) for run in made.runs] == [("none", "none")]
    assert made.notes == (
        "3 of 4 runs are the same as another, since --set norm.kind decides it: trained once",
    )


def test_a_key_from_the_command_line_reaches_the_runs_that_have_it(plan: Any) -> None:
    before, after = plan(FOUR).runs, plan(FOUR, "norm.groups=4").runs
    changed = [
        new.setup
        for old, new in zip(before, after, strict=True)
        if identity.identity(old) != identity.identity(new)
    ]
    assert changed == ["gn"]


def test_the_command_line_wins_over_axes(plan: Any) -> None:
    made = plan("axes: {data.batch_size: [2, 4]}", "data.batch_size=8")
    assert made.only().data.batch_size == 8
    assert made.notes == (
        "1 of 2 runs is the same as another, since --set data.batch_size decides it: trained once",
    )


def test_a_key_that_no_run_has(faults: Any) -> None:
    assert faults(FOUR, "norm.kind=none", "norm.placement=after") == (
        "--set norm.placement: no run has the key norm.placement\n"
        f"  placement is a key of kind {listing(NORMS.kinds_with('placement'))}"
    )
    assert faults("", "norm.groups=2") == (
        "--set norm.groups: no run has the key norm.groups\n"
        f"  groups is a key of kind {listing(NORMS.kinds_with('groups'))}"
    )


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("optim.lr", "--set optim.lr: this is not KEY=VALUE\n  write --set optim.lr=0.1"),
        ("=3", "--set: this is not KEY=VALUE\n  write --set optim.lr=0.1"),
        ("optim.lr=", "--set optim.lr: the value is missing\n"
         "  write --set optim.lr=VALUE; null stands for none"),
        ("optim.lr=fast",
         '--set optim.lr: optim.lr must be a number above 0 and at most 1e20, not "fast"'),
        ("optim.lr=[1", "--set optim.lr: this is not YAML: a [ is not closed, or a comma is "
         "missing"),
        ("optim=3", "--set optim: optim must be a mapping, not 3"),
        ("optim={lrr: 3}", '--set optim: optim.lrr is not a key of kind "sgd"\n'
         "  did you mean optim.lr?"),
        ("optm.lr=3", "--set optm.lr: optm.lr is not a key\n  did you mean optim.lr?"),
        ("norm.kind=off", f"--set norm.kind: norm.kind must be {listing(NORMS.kinds)}, not "
         '"off"\n  the kind without normalization is none'),
        ("seeds=x", "--set seeds: seeds must be a whole number from 1 to 1,000,000, or a list of "
         'seeds, not "x"'),
    ],
)  # fmt: skip
def test_faulty_arguments(faults: Any, argument: str, expected: str) -> None:
    assert faults("", argument) == expected


@pytest.mark.parametrize("text", ["norm: {kind: group}", "setups: {a: {norm: {kind: group}}}"])
def test_a_kind_from_the_command_line_decides_which_axes_fit(
    plan: Any, faults: Any, text: str
) -> None:
    text += "\naxes: {norm.momentum: [0.2, 0.3]}\n"
    assert "no run has the key norm.momentum" in faults(text)
    assert [run.norm.momentum for run in plan(text, "norm.kind=batch").runs] == [0.2, 0.3]


def test_own_keys_from_the_command_line(plan: Any) -> None:
    made = plan("{seed: 9, experiment: a}", "experiment=Big Study", "seeds=[4, 2]")
    assert [run.seed for run in made.runs] == [4, 2]
    assert made.runs[0].experiment == "big-study"


def test_seed_options(plan: Any) -> None:
    text = "seeds: [3, 4]"
    assert [run.seed for run in plan(text).runs] == [3, 4]
    assert [run.seed for run in plan(text, seeds=3).runs] == [0, 1, 2]
    assert [run.seed for run in plan(text, seed=7).runs] == [7]


def test_setups_without_names_are_called_by_their_norm(plan: Any) -> None:
    made = plan("", over=("norm.kind=none,batch,group", "norm.placement=before,after"))
    assert [run.setup for run in made.runs] == [
        *("none", "batch-before", "batch-after", "group-before", "group-after")
    ]
    assert made.notes == (
        "1 of 6 runs is the same as another, since norm.placement has no meaning under norm.kind "
        "none: trained once",
    )
    assert identity.run_id(made.runs[0]).startswith("none_kind-none_s00_")


def test_relative_roots_start_where_they_were_written(plan: Any, tmp_path: Any) -> None:
    text = "data: {dataset: mnist, root: ../images/./a}"
    assert plan(text).only().data.root == str(tmp_path.parent / "images" / "a")
    assert plan(text, "data.root=b").only().data.root == str(tmp_path / "b")
    assert plan(text, "data.root=/c").only().data.root == "/c"
    assert plan(text, "data.root=null").only().data.root is None
    assert "~" not in plan(text, "data.root=~/d").only().data.root
