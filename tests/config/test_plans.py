from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

import pytest

from bnbench.config import identity, loading, plans
from bnbench.errors import ConfigError, UsageError

SAMPLE = """\
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
"""


def test_the_sample(plan: Any) -> None:
    made = plan(SAMPLE)
    assert len(made.runs) == 4 * 4 * 7 * 8
    assert len({identity.run_id(run) for run in made.runs}) == len(made.runs)
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
        ("optim.lr=", "--over optim.lr: the values are missing\n"
         "  write --over optim.lr=V1,V2, as in --over optim.lr=0.03,0.3"),
        ("optim.lr", "--over optim.lr: this is not KEY=VALUE\n  write --over optim.lr=0.1"),
        ("optim.lr=1,x",
         '--over optim.lr: optim.lr must be a number above 0 and at most 1e20, not "x"'),
        ("optim=1", "--over optim: optim is a block, not a key\n"
         "  name one key of it: optim.lr, optim.weight_decay, optim.decay_norm_and_bias, "
         "optim.lr_rule, optim.base_batch_size, optim.schedule, optim.warmup, optim.milestones, "
         "optim.decay, optim.train_only, optim.kind, optim.momentum, optim.betas or optim.eps"),
    ],
)  # fmt: skip
def test_faulty_over(faults: Any, argument: str, expected: str) -> None:
    assert faults("", over=(argument,)) == expected


def test_an_axis_is_given_once(faults: Any) -> None:
    over = ("optim.lr=1,2", "optim.lr=3")
    assert faults("", over=over) == "--over optim.lr: optim.lr is given twice"


OWN = """
setups:
  bn: {}
  gn: {norm: {kind: group}, axes: {optim.lr: {log: [0.1, 10, 3]}}}
  ln: {norm: {kind: layer}, axes: {optim.lr: [0.5]}}
axes: {data.batch_size: [2, 4], optim.lr: [1, 2]}
seeds: 2
"""


def test_a_setup_may_give_values_of_its_own_for_an_axis(plan: Any) -> None:
    made = plan(OWN)
    assert made.grid == (
        "3 setups × 2 values of data.batch_size × 2 values of optim.lr (gn: 3, ln: 1) × 2 seeds"
    )
    assert made.notes == made.warnings == ()
    assert len(made.runs) == (2 * 2 + 2 * 3 + 2 * 1) * 2
    assert [(run.setup, run.data.batch_size, run.optim.lr) for run in made.runs[:12]] == [
        *(("bn", 2, 1.0), ("bn", 2, 2.0), ("bn", 4, 1.0), ("bn", 4, 2.0)),
        *(("gn", 2, 0.1), ("gn", 2, 1.0), ("gn", 2, 10.0)),
        *(("gn", 4, 0.1), ("gn", 4, 1.0), ("gn", 4, 10.0)),
        *(("ln", 2, 0.5), ("ln", 4, 0.5)),
    ]
    # Every cell has the same columns.
    assert {run.swept for run in made.runs} == {("data.batch_size", "optim.lr")}


def test_an_own_axis_of_the_same_length_is_still_its_own(plan: Any) -> None:
    made = plan("axes: {optim.lr: [1, 2]}\nsetups: {a: , b: {axes: {optim.lr: [2, 3]}}}")
    assert made.grid == (
        "2 setups × 2 values of optim.lr × 1 seed: 4, 1 of them the same as another"
    )
    assert [(run.setup, run.optim.lr) for run in made.runs] == [
        *(("a", 1.0), ("a", 2.0), ("b", 3.0)),  # b at 2 is a at 2
    ]


def test_the_command_line_wins_over_own_axes(plan: Any, faults: Any) -> None:
    over = plan(OWN, over=("optim.lr=0.3,0.4",))
    assert over.grid == "3 setups × 2 values of data.batch_size × 2 values of optim.lr × 2 seeds"
    assert [run.optim.lr for run in over.runs] == [0.3, 0.4] * 12
    other = plan(OWN, over=("norm.eps=1,2", "data.batch_size=8"))
    assert [run.optim.lr for run in other.runs if run.setup == "gn"][:6] == [
        *(0.1, 0.1, 1.0, 1.0, 10.0, 10.0)
    ]
    assigned = plan(OWN, "optim.lr=0.3")
    assert [(run.setup, run.data.batch_size, run.optim.lr) for run in assigned.runs[:6]] == [
        *(("bn", 2, 0.3), ("bn", 4, 0.3), ("gn", 2, 0.3), ("gn", 4, 0.3)),
        *(("ln", 2, 0.3), ("ln", 4, 0.3)),
    ]
    assert assigned.notes == (
        "12 of 24 runs are the same as another, since --set optim.lr decides it: trained once",
    )
    # What the command line replaces is judged all the same.
    assert faults(OWN.replace("[0.5]", "0.5"), over=("optim.lr=1",)) == (
        "x.yaml:5:46: setups.ln.axes.optim.lr must be a list, {log: [a, b, n]} or {linear: "
        "[a, b, n]}, not 0.5\n"
        "  write [0.5]"
    )
    # An axis that only the command line makes is an axis.
    text = "setups: {a: {axes: {optim.lr: [3]}}}"
    assert plan(text, over=("optim.lr=1,2",)).grid == "1 setup × 2 values of optim.lr × 1 seed"


def test_a_kind_from_the_command_line_leaves_own_axes_without_meaning(plan: Any) -> None:
    text = """
setups: {gn: {norm: {kind: group}, axes: {norm.groups: [2]}}, bn: }
axes: {norm.groups: [1, 4], norm.kind: [batch, evonorm-s0]}
"""
    evo = plan(text, over=("norm.kind=evonorm-s0",))
    assert [run.norm.groups for run in evo.runs] == [2, 1, 4]
    text = text.replace("evonorm-s0]", "group]").replace(
        "bn: }", "bn: {axes: {norm.kind: [group]}}}"
    )
    made = plan(text, "norm.kind=evonorm-s0")
    assert [(run.setup, run.norm.groups) for run in made.runs] == [("gn", 2), ("bn", 1), ("bn", 4)]


def test_the_cap_and_the_notes_count_own_axes(faults: Any, plan: Any) -> None:
    text = OWN.replace("log: [0.1, 10, 3]", "linear: [1, 9, 5000]")
    assert faults(text) == (
        "x.yaml: the grid has 20,012 runs (3 setups × 2 values of data.batch_size × 2 values of "
        "optim.lr (gn: 5,000, ln: 1) × 2 seeds), more than 10,000\n"
        "  sweep --max-runs lifts this limit"
    )
    assert plan(OWN.replace("[0.5]", "[0.5, 0.50]")).notes == (
        "setup ln: optim.lr lists 2 values, 1 of them distinct",
    )
    many = "".join(f"  s{i}: {{optim: {{momentum: 0.{i}}}, axes: {{norm.eps: [1]}}}}\n"
                   for i in range(1, 10))  # fmt: skip
    assert plan(f"axes: {{norm.eps: [1, 2]}}\nsetups:\n{many}").grid == (
        "9 setups × 2 values of norm.eps (s1: 1, s2: 1, s3: 1, s4: 1, s5: 1, s6: 1 and 3 more) × "
        "1 seed"
    )


def test_unequal_trials_are_warned_of(plan: Any) -> None:
    assert plan(OWN + "tune: {axis: optim.lr}").warnings == (
        "tune.axis optim.lr: setups with more values have more trials to pick the best from "
        "(bn: 2, gn: 3, ln: 1)",
    )
    assert plan(OWN + "tune: {axis: data.batch_size}").warnings == ()
    claims = """tune: {axis: optim.lr}
claims:
- {id: c, says: c, metric: test/running/accuracy, better: gn, worse: bn, at: {data.batch_size: 2}}
profiles: {p: {claims: [c]}}
"""
    two = plan(OWN + claims, "profile=p")
    assert two.warnings[0].endswith("(bn: 2, gn: 3)"), "ln is not trained"
    assert plan(OWN + "tune: {axis: optim.lr}", over=("optim.lr=1,2",)).warnings == ()


def test_placement_is_an_axis_where_there_are_two(plan: Any, faults: Any) -> None:
    text = """
setups: {bn: , frn: {norm: {kind: frn}}, sws: {norm: {kind: scaled-ws}}}
axes: {norm.placement: [before, after]}
"""
    assert faults(text) == (
        'x.yaml:3:33: norm.placement must be before, not "after" (setup frn)\n'
        "  frn is the activation as well: there is none for it to stand after"
    )
    made = plan(text.replace("kind: frn}", "kind: frn}, axes: {norm.placement: [before]}"))
    assert [run.setup for run in made.runs] == ["bn", "bn", "frn", "sws"]


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
    text = "{setups: {a: , b: }, axes: {optim.lr: [1, 2, 3]}, seeds: 1000000}"
    assert faults(text) == (
        "x.yaml: the grid has 6,000,000 runs (2 setups × 3 values of optim.lr × "
        "1,000,000 seeds), more than 10,000\n"
        "  sweep --max-runs lifts this limit"
    )


def test_the_cap_is_an_argument(tmp_path: Any) -> None:
    (tmp_path / "x.yaml").write_text("seeds: 5")
    experiment = loading.load_experiment(tmp_path / "x.yaml")
    assert len(plans.expand(experiment, max_runs=5).runs) == 5
    with pytest.raises(ConfigError, match=r"the grid has 5 runs \(5 seeds\), more than 4"):
        plans.expand(experiment, max_runs=4)


def test_only_one_run(plan: Any) -> None:
    made = plan("{setups: {a: , b: {optim: {lr: 1}}}, axes: {norm.eps: [1, 2]}, seeds: 3}")
    with pytest.raises(UsageError) as caught:
        made.only()
    assert str(caught.value) == (
        "x.yaml describes 12 runs (2 setups × 2 values of norm.eps × 3 seeds)\n"
        "  bnbench sweep x.yaml trains them; to train one, add for example\n"
        "  --setup a --set norm.eps=1.0 --seed 0"
    )


def test_one_setup_of_a_file(plan: Any, faults: Any) -> None:
    """It is the run that a sweep of the file trains, wherever the setup stands."""
    text = "{setups: {a: , b: {norm: {kind: none}}}, axes: {optim.lr: [1, 2]}, seeds: 3}"
    every, one = plan(text), plan(text, "optim.lr=2", setup="b", seed=1).only()
    assert identity.run_id(one) in {identity.run_id(run) for run in every.runs}
    assert (one.setup, one.optim.lr, one.seed) == ("b", 2.0, 1)
    assert faults(text, setup="c") == '--setup: there is no setup "c"\n  setups: a, b'
    assert faults("setups: {batch: , none: }", setup="batsh") == (
        '--setup: there is no setup "batsh"\n  did you mean batch?'
    )
    assert faults("seeds: 3", setup="c") == "--setup: the file has no setups"


def test_what_is_to_be_typed_for_one_run_leaves_one(plan: Any) -> None:
    text = (
        "{setups: {'my bn': , b: {norm: {kind: group}}}, axes: {model.widths: [[4], [4, 8]], "
        "model.activation: [relu, tanh], norm.momentum: [null, 0.1]}, seeds: 2}"
    )
    with pytest.raises(UsageError) as caught:
        plan(text).only()
    words = shlex.split(str(caught.value).splitlines()[-1])
    given = dict(zip(words[::2], words[1::2], strict=True))
    sets = [value for option, value in pairwise(words) if option == "--set"]
    assert len(sets) == 3
    one = plan(text, *sets, setup=given["--setup"], seed=int(given["--seed"])).only()
    assert one == plan(text).runs[0]
    text = "setups: {a: {norm: {kind: none}}, b: }\naxes: {norm.momentum: [0.1, 0.2]}"
    with pytest.raises(UsageError, match=r"\n  --setup a$"):
        plan(text).only()
    assert plan(text, setup="a").only() == plan(text).runs[0], "where the axis has no meaning"


def test_a_thousand_runs_expand(plan: Any) -> None:
    values = ", ".join(str(i / 1000) for i in range(1, 501))
    assert (
        len(
            plan(
                f"{{setups: {{a: , b: {{norm: {{eps: 1}}}}}}, axes: {{optim.lr: [{values}]}}}}"
            ).runs
        )
        == 1000
    )
