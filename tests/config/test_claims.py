"""Claims and profiles as they are written: what they mean, and the text of each fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import claims, experiments, files, loading, metrics, plans
from bnbench.errors import ConfigError
from tests.commands import bnbench

BASE = """\
setups:
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group}}
axes: {data.batch_size: [2, 32], optim.lr: [0.1, 0.316228]}
tune: {axis: optim.lr}
"""


def claim(text: str) -> str:
    return f"{BASE}claims: [{{{text}}}]\n"


def loaded(tmp_path: Path, text: str, *sets: str) -> Any:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return loading.load_experiment(path, loading.Overrides(set=sets))


GOOD = "id: a, says: s, metric: test/running/accuracy, better: bn@2, worse: gn@data.batch_size=2"


def test_a_claim_as_it_is_read(tmp_path: Path) -> None:
    experiment = loaded(tmp_path, claim(GOOD + ", smallest_effect: 1"))
    (found,) = experiment.claims
    assert found.measured == metrics.EndReading("test", "running", "accuracy")
    assert found.better_arms == (experiments.Arm("bn", (("data.batch_size", 2),)),)
    assert found.worse_arms == (experiments.Arm("gn", (("data.batch_size", 2),)),)
    assert (found.direction, found.when, found.log, found.smallest_effect) == (
        *("up", "last", False, 1.0),
    )
    runs = plans.expand(experiment).runs
    chosen = claims.runs_of(found, found.better_arms[0], runs)
    # Both learning rates: tuning picks one of them later.
    assert [(run.setup, run.data.batch_size, run.optim.lr) for run in chosen] == [
        ("bn", 2, 0.1),
        ("bn", 2, 0.316228),
    ]


def test_a_value_may_be_written_shorter_than_the_axis_has_it(tmp_path: Path) -> None:
    experiment = loaded(tmp_path, claim(GOOD + ", at: {optim.lr: 0.316}"))
    runs = plans.expand(experiment).runs
    (found,) = experiment.claims
    assert {run.optim.lr for run in claims.runs_of(found, found.better_arms[0], runs)} == {0.316228}


CASES = [
    ("{a: b}", "claims[0].a is not a key"),
    ("3", "claims[0] must be a mapping, not 3"),
    ("{id: a}", "claims[0].says is missing\n  says: the claim in words"),
    ("{%s, direction: sideways}", "claims[0].direction must be up, down or two-sided, not "),
    ("{%s, smallest_effect: -1}", "claims[0].smallest_effect must be a number from 0 to 1e20"),
    ("{%s, target: 2}", "claims[0].target must be"),
    ("{%s, at: {optim.rl: 1}}", "claims[0].at: optim.rl is not an axis\n  did you mean optim.lr?"),
    ("{%s, slope_over: norm.eps}", "claims[0].slope_over: norm.eps is not an axis\n  axes: data."),
    ("{%s, log: 3}", "claims[0].log must be true or false, not 3"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_faults(faults: Any, text: str, expected: str) -> None:
    said = faults(f"{BASE}claims: [{text.replace('%s', GOOD)}]")
    assert expected in said
    assert "Error" not in said


REPLACED = [
    ("metric: test/running/accuracy", "metric: test/running/acuracy", "did you mean test/running/"),
    ("metric: test/running/accuracy", "metric: probe/batch_nois/noise", "did you mean batch_noise"),
    ("metric: test/running/accuracy", "metric: test/running/steps_to_target", "is not a metric"),
    ("metric: test/running/accuracy", "metric: usable_lr_max", "target is missing"),
    ("metric: test/running/accuracy", "metric: speed", "train, val or test/running, batch or"),
    ("better: bn@2", "better: bm@2", "bm is not a setup\n  setups: bn and gn"),
    ("better: bn@2", "better: bn@norm.eps=2", "norm.eps is not an axis"),
    ("better: bn@2", "better: [bn@2, bn@32, gn@2]", "claims[0].better must be a setup such as"),
    ("better: bn@2", "better: [bn@2, bn@32]", "worse must name as many setups as better: 2"),
    ("better: bn@2", "better: gn@2", "better and worse are the same\n  name the opponent"),
    ("id: a", "id: a b", 'id "a b" is no name\n  write a-b'),
]


@pytest.mark.parametrize(("old", "new", "expected"), REPLACED)
def test_faults_of_names(faults: Any, old: str, new: str, expected: str) -> None:
    assert expected in faults(claim(GOOD.replace(old, new)))


def test_without_a_learning_rate_axis_no_rate_is_usable(faults: Any) -> None:
    text = "setups: {a: , b: {optim: {lr: 1}}}\nclaims: [{id: a, says: s, better: a, worse: b, "
    said = faults(text + "metric: usable_lr_max, target: 0.5}]")
    assert said == (
        "x.yaml:2:56: claims[0]: usable_lr_max needs learning rates to try\n  make optim.lr an axis"
    )


def test_ids_are_unique(faults: Any) -> None:
    assert "two claims have the id a" in faults(f"{BASE}claims: [{{{GOOD}}}, {{{GOOD}}}]")


DOUBTS = [
    ("better: bn@2", "better: bn@4", "no run is bn@data.batch_size=4"),
    ("better: bn@2", "better: bn", "bn has several values of data.batch_size: name one"),
]


@pytest.mark.parametrize(("old", "new", "expected"), DOUBTS)
def test_what_cannot_be_judged_is_a_warning(plan: Any, old: str, new: str, expected: str) -> None:
    (warning,) = plan(claim(GOOD.replace(old, new))).unjudged
    assert warning.startswith(f"claim a cannot be judged: {expected}")


@pytest.mark.parametrize(
    ("metric", "judged"),
    [
        ("val/running/loss", False),
        ("val/gap/loss", False),
        ("test/running/loss", True),
        ("probe/batch_noise/noise, target: 0.5", False),
        ("probe/batch_noise/noise", True),
    ],
)
def test_without_validation_images_no_claim_reads_them(
    plan: Any, metric: str, judged: bool
) -> None:
    text = "data: {validation_size: 0}\nsetups: {a: , b: {norm: {kind: none}}}\n"
    text += f"claims: [{{id: a, says: s, better: a, worse: b, metric: {metric}}}]\n"
    said = "claim a cannot be judged: it reads validation images, and data.validation_size is 0"
    assert plan(text).unjudged == (() if judged else (said,))


def test_the_same_runs_under_two_names_are_no_comparison(plan: Any) -> None:
    text = "setups: {a: {norm: {kind: none}}, b: {norm: {kind: none}}}\nclaims: [{id: a, says: s, "
    (warning,) = plan(text + "metric: val/running/loss, better: a, worse: b}]\n").unjudged
    assert warning == "claim a cannot be judged: no run is b"  # both are trained once, as a


def test_doubts_know_the_tuned_axis(tmp_path: Path) -> None:
    experiment = loaded(tmp_path, claim(GOOD))
    runs = plans.expand(experiment).runs
    assert list(claims.doubts(experiment.claims, runs, experiment.tune)) == []
    assert len(list(claims.doubts(experiment.claims, runs, None))) == 1


METRICS = {
    "test/running/accuracy": (metrics.EndReading("test", "running", "accuracy"), "low", "points"),
    "train/batch/loss": (metrics.EndReading("train", "batch", "loss"), "high", "nats"),
    "val/gap/kl": (metrics.GapReading("val", "kl"), None, "nats"),
    "test/gap/accuracy": (metrics.GapReading("test", "accuracy"), None, "points"),
    "val/running/examples_to_target": (
        metrics.ToTarget("val", "running", "examples_to_target"), "high", "doublings",
    ),
    "usable_lr_max": (metrics.UsableLr("usable_lr_max"), None, "decades"),
    "images_per_second": (metrics.Speed("images_per_second"), None, "doublings"),
    "probe/batch_noise/noise": (metrics.ProbeReading("batch_noise", "*", "noise"), None, ""),
    "probe/shifted_images/blur.2/lost": (
        metrics.ProbeReading("shifted_images", "blur.2", "lost"), None, "points",
    ),
    "probe/activation_drift/inputs/mean_drift": (
        metrics.ProbeReading("activation_drift", "inputs", "mean_drift"), None, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name: str) -> None:
    metric = metrics.parse_metric(name)
    assert (metric, metrics.worst(metric), metrics.unit(metric)) == METRICS[name]


def test_every_metric_is_one() -> None:
    names = metrics.METRICS
    assert len(names) == len(set(names)) == 27 + 12 + 18 + 4
    for name in names:
        metrics.parse_metric(name)


PROFILES = """\
profile: small
profiles:
  small: {seeds: 2}
  large: {seeds: [1, 5, 7], axes: {optim.lr: [1, 2, 3]}, train: {steps: 7}, data: {batch_size: 4}}
axes: {optim.lr: [0.1], norm.eps: [0.1]}
train: {epochs: 3, evaluations: 5}
seed: 3
"""


def test_a_profile_replaces_seeds_and_axes_and_patches_blocks(plan: Any) -> None:
    small, large = plan(PROFILES), plan(PROFILES, "profile=large")
    assert [run.seed for run in small.runs] == [0, 1]
    assert {(run.train.epochs, run.optim.lr) for run in small.runs} == {(3, 0.1)}
    assert sorted({run.seed for run in large.runs}) == [1, 5, 7]
    assert sorted({run.optim.lr for run in large.runs}) == [1, 2, 3]
    assert {(r.train.steps, r.train.epochs, r.train.evaluations) for r in large.runs} == {
        (7, None, 5)
    }
    assert {(run.norm.eps, run.data.batch_size) for run in large.runs} == {(0.1, 4)}


def test_what_the_command_line_sets_wins_over_the_profile(plan: Any) -> None:
    made = plan(PROFILES, "profile=large", "train.steps=9", over=("optim.lr=5",), seeds=1)
    assert [(run.train.steps, run.optim.lr, run.seed) for run in made.runs] == [(9, 5, 0)]


def test_without_a_choice_the_first_profile_is_in_force(plan: Any) -> None:
    assert len(plan(PROFILES.partition("\n")[2]).runs) == 2


TWO_CLAIMS = f"""\
{BASE}claims:
- {{{GOOD}}}
- {{id: b, says: s, metric: test/running/accuracy, better: bn@32, worse: bn@2,
   at: {{optim.lr: 0.1}}}}
"""


def test_a_profile_may_name_the_claims_that_it_judges_and_trains_only_for_them(
    tmp_path: Path,
) -> None:
    text = f"{TWO_CLAIMS}profiles: {{one: {{claims: [b]}}, all: {{}}}}\n"
    one = loaded(tmp_path, text)
    plan = plans.expand(one)
    assert [claim.id for claim in one.claims] == ["b"]
    assert [(run.setup, run.data.batch_size, run.optim.lr) for run in plan.runs] == [
        ("bn", 2, 0.1),
        ("bn", 32, 0.1),
    ]
    assert plan.grid.endswith("; only those of b")
    assert plan.warnings == ()
    every = loaded(tmp_path, text, "profile=all")
    assert [claim.id for claim in every.claims] == ["a", "b"]
    assert len(plans.expand(every).runs) == 8
    # A claim whose learning rate is tuned needs every value of it.
    first = plans.expand(loaded(tmp_path, text.replace("[b]", "[a]")))
    assert [(run.setup, run.optim.lr) for run in first.runs] == [
        *(("bn", 0.1), ("bn", 0.316228), ("gn", 0.1), ("gn", 0.316228)),
    ]
    assert {run.data.batch_size for run in first.runs} == {2}


@pytest.mark.parametrize(
    ("profiles", "sets", "asked", "kept", "runs"),
    [("{all: {}, one: {claims: [b]}}", ("profile=one",), (), "b", 2),
     ("{one: {claims: [a, b]}}", (), ("b",), "ab", 5), ("{}", (), ("b",), "ab", 8)],
)  # fmt: skip
def test_what_is_judged_is_kept_with_the_experiment_whichever_claim_is_trained(
    tmp_path: Path,
    profiles: str,
    sets: tuple[str, ...],
    asked: tuple[str, ...],
    kept: str,
    runs: int,
) -> None:
    (tmp_path / "x.yaml").write_text(f"{TWO_CLAIMS}profiles: {profiles}")
    given = loading.load_experiment(tmp_path / "x.yaml", loading.Overrides(sets, claims=asked))
    assert [run.setup for run in plans.expand(given).runs] == ["bn", "bn"]
    (tmp_path / "kept").mkdir()
    again = loaded(tmp_path / "kept", files.dump_experiment(given))
    assert [claim.id for claim in again.claims] == [*kept]
    assert len(plans.expand(again).runs) == runs


def test_a_profile_of_unknown_claims_and_too_many_runs(faults: Any) -> None:
    said = faults("setups: {a: , b: }\nprofiles: {q: {claims: [x]}}", seeds=6000, claims=("y",))
    assert "profiles.q.claims: x is not a claim" in said
    assert "--claim: y is not a claim\n  the file has no claims" in said
    assert "the grid has 12,000 runs (2 setups × 6,000 seeds), more than 10,000" in said


def test_a_profile_of_claims_without_runs(tmp_path: Path) -> None:
    text = f"{TWO_CLAIMS}profiles: {{one: {{claims: [b], axes: {{data.batch_size: [4, 8]}}}}}}\n"
    with pytest.raises(ConfigError) as caught:
        plans.expand(loaded(tmp_path, text))
    (fault,) = caught.value.faults
    assert fault.message == "no run is of claim b: its setups or values are not planned"
    assert fault.hint == "name them in setups and axes, or leave the claim out"
    assert fault.where.startswith(f"{tmp_path / 'x.yaml'}:")
    asked = loading.load_experiment(tmp_path / "x.yaml", loading.Overrides(claims=("b",)))
    with pytest.raises(ConfigError) as caught:
        plans.expand(asked)
    assert caught.value.faults[0].where == "--claim"


def test_a_claim_that_the_profile_leaves_out(faults: Any) -> None:
    said = faults(f"{TWO_CLAIMS}profiles: {{one: {{claims: [a]}}, all: {{}}}}", claims=("b",))
    assert said == "--claim: b is not a claim of profile one\n  take --set profile=all"


@pytest.mark.parametrize(
    ("text", "sets", "expected"),
    [
        (TWO_CLAIMS + "profiles: {x: {}, y: {claims: [a, c]}}", (),
         "profiles.y.claims: c is not a claim\n  claims: a and b"),
        (TWO_CLAIMS + "profiles: {y: {claims: []}}", (), "profiles.y.claims"),
        ("profiles: {y: {claims: [a]}}", (), "a is not a claim\n  the file has no claims"),
        (PROFILES, ("profile=larg",), "profile must be small or large, not \"larg\"\n  did you "),
        ("train: {steps: 3}", ("profile=full",), "the file has no profiles"),
        ("profiles: [1]", (), "profiles must be a mapping, not a list"),
        ("profiles: {a: 3}", (), "profiles.a must be a mapping, not 3"),
        ("profiles: {a: {setups: {}}}", (), "setups is not a key of a profile"),
        ("profiles: {a: {train: 3}}", (), "profiles.a.train must be a mapping, not 3"),
        ("profiles: {a: {optim: {lr: -1}}}", (), "a number above 0 and at most 1e20, not -1"),
        ("profiles: {a: {axes: {optim.rl: [1]}}}", (), "did you mean optim.lr?"),
    ],
)  # fmt: skip
def test_faults_of_profiles(faults: Any, text: str, sets: tuple[str, ...], expected: str) -> None:
    assert expected in faults(text, *sets)


def test_an_experiment_is_kept_with_its_claims_and_the_profile_in_force(tmp_path: Path) -> None:
    text = claim(GOOD) + PROFILES.replace("axes: {optim.lr: [0.1], norm.eps: [0.1]}\n", "")
    there = loaded(tmp_path, text, "profile=large")
    kept = tmp_path / "kept"
    kept.mkdir()
    again = loaded(kept, files.dump_experiment(there))
    assert again.claims == there.claims
    assert again.profile == there.profile == "large"
    assert [run.model_dump() for run in plans.expand(again).runs] == [
        run.model_dump() for run in plans.expand(there).runs
    ]
    assert json.loads(json.dumps(plans.expand(again).grid)) == plans.expand(there).grid


def test_several_claims_are_asked_for_with_commas(own_folder: Path) -> None:
    (own_folder / "x.yaml").write_text(TWO_CLAIMS)
    said = bnbench("sweep", "x.yaml", "--claim", "y,a, z", "--claim", "w", "--dry-run")
    assert said.code == 2
    assert {line.split()[1] for line in said.err.splitlines() if "not a claim" in line} == {*"yzw"}
