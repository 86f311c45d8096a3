"""From runs to verdicts, on experiments whose truth is invented."""

from __future__ import annotations

from math import inf, isnan
from pathlib import Path
from typing import Any, get_args

import pytest

from bnbench.config import schema
from bnbench.report.looks import judged
from bnbench.report.reading import read_study
from bnbench.report.verdicts import Judged
from tests.report.invented import Told, invented

BASE = """\
setups:
  bn: {norm: {kind: batch}}
  gn: {norm: {kind: group}}
axes: {data.batch_size: [32%s]}
seeds: %d
claims:
  - {id: a, says: s, metric: %s, better: %s, worse: %s, smallest_effect: %s, %s}
"""


def ask(
    path: Path,
    tell: Any,
    *,
    metric: str = "test/running/accuracy",
    better: str = "bn",
    worse: str = "gn",
    smallest: float = 1,
    rest: str = "direction: up",
    seeds: int = 8,
    sizes: str = "",
) -> Judged:
    written = BASE % (sizes, seeds, metric, better, worse, smallest, rest)
    (found,) = judged(read_study(invented(path, written, tell)))
    return found


def noise(config: schema.RunConfig, setup: str = "") -> float:
    """Two points of fixed noise, other in each run."""
    return ((config.seed * 7919 + len(setup) * 104729 + 13) % 1000) / 1000 * 0.02 - 0.01


def accuracies(**means: float) -> Any:
    """Test accuracies by setup, with noise that differs between setups."""
    return lambda config: Told(
        test=means[config.setup] + noise(config) * (1 if config.setup == "bn" else -1)
    )


@pytest.mark.parametrize(
    ("bn", "gn", "outcome"),
    [
        (0.80, 0.70, "supported"),
        (0.70, 0.80, "refuted"),
        (0.75, 0.75, "inconclusive"),
    ],
)
def test_the_outcome_follows_the_truth(tmp_path: Path, bn: float, gn: float, outcome: str) -> None:
    found = ask(tmp_path, accuracies(bn=bn, gn=gn))
    assert found.verdict.outcome == outcome
    assert found.unit == "points"
    assert list(found.pairs) == list(range(8))
    effect = found.verdict.effect
    assert effect is not None
    assert effect.mean == pytest.approx(100 * (bn - gn), abs=2.5)
    if bn != gn:
        assert found.superiority == (1.0 if bn > gn else 0.0)


def test_equal_runs_are_negligible(tmp_path: Path) -> None:
    assert ask(tmp_path, lambda _: Told(test=0.5)).verdict.outcome == "negligible"


def test_a_claim_of_less_turns_the_differences(tmp_path: Path) -> None:
    found = ask(
        tmp_path, accuracies(bn=0.8, gn=0.7), metric="test/running/error", rest="direction: down"
    )
    assert found.verdict.outcome == "supported"
    assert all(difference > 0 for difference in found.pairs.values())
    assert found.superiority == 1.0


def test_pairs_are_of_the_same_seed(tmp_path: Path) -> None:
    # Seeds differ by far more than setups: unpaired, nothing would show.
    found = ask(
        tmp_path,
        lambda config: Told(test=0.1 * config.seed + (0.02 if config.setup == "bn" else 0.0)),
    )
    assert found.verdict.outcome == "supported"
    assert list(found.pairs.values()) == pytest.approx([2.0] * 8)


def test_differences_of_differences(tmp_path: Path) -> None:
    values = {("bn", 2): 0.5, ("bn", 32): 0.8, ("gn", 2): 0.7, ("gn", 32): 0.75}
    found = ask(
        tmp_path,
        lambda config: Told(test=values[config.setup, config.data.batch_size] + noise(config)),
        better="[bn@32, bn@2]",
        worse="[gn@32, gn@2]",
        sizes=", 2",
    )
    assert list(found.pairs.values()) == pytest.approx([25.0] * 8)
    assert found.verdict.outcome == "supported"
    assert found.superiority is None


def test_diverged_seeds_are_ranked_and_never_averaged(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        if config.setup == "gn" and config.seed < 3:
            return Told(state="diverged")
        return Told(test={"bn": 0.8, "gn": 0.7}[config.setup])

    found = ask(tmp_path, tell)
    effect = found.verdict.effect
    assert effect is not None
    assert (effect.infinite, effect.mean, effect.method) == (3, None, "order statistics")
    assert [found.pairs[seed] for seed in range(3)] == [inf] * 3
    assert found.worse[0].diverged == 3
    assert found.verdict.outcome == "supported"
    assert effect.median == pytest.approx(10)


def test_where_both_diverge_no_difference_was_seen(tmp_path: Path) -> None:
    found = ask(tmp_path, lambda _: Told(state="diverged"))
    assert list(found.pairs) == list(range(8))
    assert all(map(isnan, found.pairs.values()))
    assert found.verdict.effect is not None
    assert (found.verdict.effect.ties, found.verdict.effect.differences) == (8, ())
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reasons[0] == ("no run on either side reached the target, or all diverged")


@pytest.mark.parametrize("state", ["failed", "interrupted", None])
def test_missing_runs_make_it_inconclusive(tmp_path: Path, state: str | None) -> None:
    truth = accuracies(bn=0.9, gn=0.5)

    def tell(config: schema.RunConfig) -> Told | None:
        if (config.setup, config.seed) != ("gn", 7):
            return truth(config)  # type: ignore[no-any-return]
        return None if state is None else Told(state=state)

    found = ask(tmp_path, tell)
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reasons == (f"gn: 1 of 8 runs have no result ({state or 'new'})",)
    assert len(found.pairs) == 7


def test_few_seeds_only_indicate(tmp_path: Path) -> None:
    found = ask(tmp_path, accuracies(bn=0.9, gn=0.5), seeds=3)
    assert (found.verdict.outcome, found.verdict.leaning) == ("inconclusive", "for")


def test_a_slope_over_an_axis(tmp_path: Path) -> None:
    text = (
        "setups: {a: }\naxes: {norm.batch_size: [4, 16, 128]}\ndata: {batch_size: 128}\nseeds: 8\n"
        "claims: [{id: a, says: s, metric: val/running/accuracy, better: a, "
        "slope_over: norm.batch_size, smallest_effect: 1, direction: down}]"
    )
    accuracy = {4: 0.9, 16: 0.7, 128: 0.4}  # ten points less per doubling: 2, 4 and 7 doublings

    def tell(config: Any) -> Told:
        return Told((accuracy[config.norm.batch_size] + noise(config) / 100,))

    (found,) = judged(read_study(invented(tmp_path, text, tell)))
    assert list(found.pairs.values()) == pytest.approx([10.0] * 8, abs=0.01)
    assert found.verdict.reasons == ()
    assert found.verdict.outcome == "supported"


def test_a_slope_over_a_diverged_run_is_missing(tmp_path: Path) -> None:
    text = (
        "setups: {a: }\naxes: {norm.batch_size: [4, 16]}\ndata: {batch_size: 128}\nseeds: 8\n"
        "claims: [{id: a, says: s, metric: val/running/accuracy, better: a, "
        "slope_over: norm.batch_size, smallest_effect: 1}]"
    )
    tell = lambda config: Told(state="diverged" if config.seed == 1 else "completed")  # noqa: E731
    (found,) = judged(read_study(invented(tmp_path, text, tell)))
    assert 1 not in found.pairs
    assert found.verdict.reasons == ("a: no such value of 1 seed",)


NORMS = get_args(get_args(schema.NormConfig)[0])
WITH_STATISTICS = (*get_args(schema.BatchStatistics), schema.CustomNormConfig)


@pytest.mark.parametrize("norm", [each for each in NORMS if each not in WITH_STATISTICS])
def test_a_gap_without_batch_statistics_fails_the_sanity_check(tmp_path: Path, norm: Any) -> None:
    kind = get_args(norm.model_fields["kind"].annotation)[0]
    text = BASE.replace("kind: group", f"kind: {kind}") % (
        *("", 6, "test/running/accuracy", "bn", "gn", 1),
        "direction: up",
    )

    def tell(config: schema.RunConfig) -> Told:
        return Told(test=0.9 if config.setup == "bn" else 0.5, gap=0.01)

    (found,) = judged(read_study(invented(tmp_path, text, tell)))
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reasons[0].startswith("sanity: gn_bs032_s00_")


def test_nobody_learned(tmp_path: Path) -> None:
    found = ask(tmp_path, accuracies(bn=0.13, gn=0.10))
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reasons == (
        "sanity: by test/running/accuracy no run of either side is clear of chance, 10 %",
    )


@pytest.mark.parametrize("better", ["bn", "gn"])
def test_a_probe_s_reading_counts_where_every_run_has_learned(tmp_path: Path, better: str) -> None:
    """Whichever side it is on. The control: without a target, or with one that is reached."""
    ends = {"bn": 0.9, "gn": 0.6}

    def tell(config: schema.RunConfig) -> Told:
        stuck = config.setup == "gn" and config.seed in (1, 4)
        value = 1.0 if config.setup == better else 5.0
        readings = {("landscape", "network", "beta"): (value, value)}
        return Told((0.1, 0.2 if stuck else ends[config.setup]), probes=readings)

    found = {}
    for target in ("0.5", "0.2", "null"):
        (folder := tmp_path / target).mkdir()
        found[target] = ask(
            folder,
            tell,
            metric="probe/landscape/beta",
            better=better,
            worse="bn" if better == "gn" else "gn",
            rest=f"direction: down, target: {target}",
        ).verdict
    assert found["0.2"].outcome == found["null"].outcome == "supported"
    assert found["0.5"].outcome == "inconclusive"
    assert found["0.5"].reasons == (
        "gn: 2 of 8 runs did not learn: a validation accuracy below 0.5 at the end",
    )


@pytest.mark.parametrize(
    "metric",
    [
        "test/gap/accuracy",
        "val/gap/kl",
        "probe/batch_noise/noise",
        "images_per_second",
        "train/batch/loss",
        "val/running/examples_to_target",
    ],
)
@pytest.mark.parametrize("state", ["diverged", "failed", "interrupted"])
def test_no_metric_crashes_on_what_did_not_end(tmp_path: Path, metric: str, state: str) -> None:
    def tell(config: schema.RunConfig) -> Told:
        return Told((0.5, 0.6), state=state if config.seed % 2 else "completed")

    found = ask(tmp_path, tell, metric=metric, rest="target: 0.9, direction: two-sided")
    assert found.verdict.outcome in ("inconclusive", "negligible")
    effect = found.verdict.effect
    assert effect is None or effect.mean is None or effect.infinite == 0


def test_claims_of_a_file_are_one_family(tmp_path: Path) -> None:
    text = BASE % ("", 6, "test/running/accuracy", "bn", "gn", 1, "direction: up")
    line = text.splitlines()[-1]
    lines = [line.replace("id: a", f"id: a{number}") for number in range(5)]
    whole = text.replace(line, "\n".join(lines))
    alone = ask(tmp_path, accuracies(bn=0.9, gn=0.5), seeds=6)
    assert alone.verdict.outcome == "supported"
    many = tmp_path / "many"
    many.mkdir()
    five = judged(read_study(invented(many, whole, accuracies(bn=0.9, gn=0.5))))
    # 2⁻⁶ · 5 > 0.05: six seeds cannot carry five claims.
    assert {each.verdict.outcome for each in five} == {"inconclusive"}
    assert all("Holm" in each.verdict.reasons[0] for each in five)


def test_null_is_a_value_where_a_setup_has_the_key(tmp_path: Path) -> None:
    """Of the setup that has it; to the one that does not have it, any value is the same."""
    text = (
        "setups: {bn: {norm: {kind: batch}}, gn: {norm: {kind: group}}}\n"
        "axes: {norm.batch_size: [null, 16]}\ndata: {batch_size: 64}\nseeds: 8\n"
        "claims: [{id: a, says: s, metric: test/running/accuracy, better: bn, worse: gn, "
        "at: {norm.batch_size: %s}, smallest_effect: 1}]"
    )
    accuracy = {("bn", None): 0.9, ("bn", 16): 0.7, ("gn", None): 0.6}

    def tell(config: Any) -> Told:
        key = (config.setup, getattr(config.norm, "batch_size", None))
        return Told((accuracy[key],), test=accuracy[key])

    for value, points in (("16", 10.0), ("null", 30.0)):
        (tmp_path / value).mkdir()
        folder = invented(tmp_path / value, text % value, tell)
        (found,) = judged(read_study(folder))
        assert list(found.pairs.values()) == pytest.approx([points] * 8), value
