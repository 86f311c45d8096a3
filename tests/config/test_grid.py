from __future__ import annotations

import time
from typing import Any

import pytest

from bnbench.config import load_experiment, run_id
from bnbench.config.grid import expand
from bnbench.errors import ConfigError, UsageError

# The file that the README shows.
SAMPLE = """\
experiment: batch-size
question: Which normalization survives small batches?
data:
  dataset: fashion-mnist-12k
  root: null
  download: true
  train_size: null
  validation_size: 1000
  batch_size: 64
  eval_batch_size: 500
  drop_last: true
  order: shuffled
  augment: none
model:
  kind: plain
  widths: [8, 16, 32]
  blocks: 2
  activation: relu
  init: he
  dropout: 0.0
norm:
  kind: batch
  placement: before
  batch_size: null
  momentum: 0.1
  eps: 1.0e-5
  affine: true
optim:
  kind: sgd
  lr: 0.1
  momentum: 0.9
  weight_decay: 0.0
  decay_norm_and_bias: false
  lr_rule: none
  base_batch_size: 64
  schedule: cosine
  warmup: 0.05
train:
  epochs: 3
  evaluations: 10
  log_every: 10
  checkpoint_every: 30s
  diverged_above: 10
probes: {}
compute:
  device: auto
  threads: auto
  precision: fp32
seed: 0

setups:
  none:      {norm: {kind: none}}
  bn-before: {norm: {kind: batch, placement: before}}
  bn-after:  {norm: {kind: batch, placement: after}}
  gn:        {norm: {kind: group, groups: 4}}
axes:
  data.batch_size: [2, 8, 32, 128]
  optim.lr: {log: [0.003, 3.0, 7]}
seeds: 8
tune: {axis: optim.lr, by: val/accuracy}
claims: []
"""


def test_the_sample(plan: Any) -> None:
    made = plan(SAMPLE)
    assert len(made.runs) == 4 * 4 * 7 * 8
    assert len({run_id(run) for run in made.runs}) == len(made.runs)
    assert made.notes == ()
    assert made.warnings == ()
    assert made.grid == "4 setups × 4 values of data.batch_size × 7 values of optim.lr × 8 seeds"
    assert [run.optim.lr for run in made.runs[:7]] == [
        *(0.003, 0.00948683, 0.03, 0.0948683, 0.3, 0.948683, 3.0)
    ]


def test_seeds_are_outermost_then_setups_then_axes(plan: Any) -> None:
    made = plan("{setups: {a: , b: {optim: {lr: 1}}}, axes: {data.batch_size: [2, 4]}, seeds: 2}")
    assert [(run.seed, run.setup, run.data.batch_size) for run in made.runs] == [
        *((0, "a", 2), (0, "a", 4), (0, "b", 2), (0, "b", 4)),
        *((1, "a", 2), (1, "a", 4), (1, "b", 2), (1, "b", 4)),
    ]


def test_over_replaces_and_adds(plan: Any) -> None:
    made = plan(
        "axes: {data.batch_size: [2, 4], optim.lr: [1, 2]}",
        over=("optim.lr=0.5", "norm.eps={linear: [1, 2, 3]}", "model.widths=[4], [4, 8]"),
    )
    assert made.runs[0].swept == ("data.batch_size", "optim.lr", "norm.eps", "model.widths")
    assert {run.optim.lr for run in made.runs} == {0.5}
    assert [run.norm.eps for run in made.runs[:6]] == [1.0, 1.0, 1.5, 1.5, 2.0, 2.0]
    assert [run.model.widths for run in made.runs[:2]] == [(4,), (4, 8)]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("optim.lr=", "--over optim.lr: optim.lr has no value\n"
         "  write --over optim.lr=null for no value"),
        ("optim.lr", "--over optim.lr: this is not KEY=VALUE\n  write --over optim.lr=0.1"),
        ("optim.lr=1,x", '--over optim.lr: optim.lr must be a number above 0, not "x"'),
        ("optim=1", "--over optim: optim is a block, not a key\n"
         "  name one key of it: optim.lr, optim.weight_decay, optim.decay_norm_and_bias, "
         "optim.lr_rule, optim.base_batch_size, optim.schedule, optim.warmup, optim.milestones, "
         "optim.decay, optim.kind, optim.momentum, optim.betas or optim.eps"),
    ],
)  # fmt: skip
def test_faulty_over(faults: Any, argument: str, expected: str) -> None:
    assert faults("", over=(argument,)) == expected


def test_whole_number_axes_round_and_collapse(plan: Any) -> None:
    made = plan("axes: {data.batch_size: {log: [2, 128, 4]}, train.steps: {linear: [50, 52, 5]}}")
    assert sorted({run.data.batch_size for run in made.runs}) == [2, 8, 32, 128]
    assert sorted({run.train.steps for run in made.runs}) == [50, 51, 52]
    assert made.notes == ("train.steps lists 5 values, 3 of them distinct",)


def test_duplicate_values_collapse_with_a_note(plan: Any) -> None:
    made = plan("axes: {optim.lr: [1, 0.1, 1.0]}")
    assert [run.optim.lr for run in made.runs] == [1.0, 0.1]
    assert made.notes == ("optim.lr lists 3 values, 2 of them distinct",)


def test_equal_setups_collapse(plan: Any) -> None:
    made = plan("{setups: {a: , b: {norm: {kind: batch}}}, seeds: 3}")
    assert [run.setup for run in made.runs] == ["a", "a", "a"]
    assert made.notes == (
        "3 of 6 runs are the same as another, since nothing that decides the numbers differs: "
        "trained once",
    )


def test_the_cap_comes_before_the_expansion(faults: Any) -> None:
    started = time.monotonic()
    text = "{setups: {a: , b: }, axes: {optim.lr: [1, 2, 3]}, seeds: 9000000000000000000}"
    assert faults(text) == (
        "x.yaml: the grid has 54,000,000,000,000,000,000 runs (2 setups × 3 values of optim.lr × "
        "9,000,000,000,000,000,000 seeds), more than 10,000"
    )
    assert time.monotonic() - started < 1


def test_the_cap_is_an_argument(tmp_path: Any) -> None:
    (tmp_path / "x.yaml").write_text("seeds: 5")
    experiment = load_experiment(tmp_path / "x.yaml")
    assert len(expand(experiment, max_runs=5).runs) == 5
    with pytest.raises(ConfigError, match=r"the grid has 5 runs \(5 seeds\), more than 4"):
        expand(experiment, max_runs=4)


def test_only_one_run(plan: Any) -> None:
    made = plan("{setups: {a: , b: {optim: {lr: 1}}}, axes: {norm.eps: [1, 2]}, seeds: 3}")
    with pytest.raises(UsageError) as caught:
        made.only()
    assert str(caught.value) == (
        "x.yaml describes 12 runs (2 setups × 2 values of norm.eps × 3 seeds)\n"
        "  bnbench sweep x.yaml trains them"
    )


def test_a_thousand_runs_expand_within_a_second(plan: Any) -> None:
    values = ", ".join(str(i / 1000) for i in range(1, 501))
    started = time.monotonic()
    assert (
        len(
            plan(
                f"{{setups: {{a: , b: {{norm: {{eps: 1}}}}}}, axes: {{optim.lr: [{values}]}}}}"
            ).runs
        )
        == 1000
    )
    assert time.monotonic() - started < 1
