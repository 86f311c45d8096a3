"""Remarks on the cells, with invented numbers: also where a file's claims say nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from shlex import split

import pytest

from bnbench.config import schema
from bnbench.config.loading import Overrides
from bnbench.report.answer import notices as notices_of
from bnbench.report.paper import as_latex, as_markdown
from bnbench.report.reading import read_study
from bnbench.report.remarks import short_warmups
from bnbench.report.terminal import closing_tables, closing_verdicts, terminal
from bnbench.report.writing import Report, page
from bnbench.sweeps.experiments import plan_all
from tests.report.invented import Told, invented, recorded
from tests.report.test_answer import SETUPS, SIZES, answered, notices
from tests.report.test_terminal import printed
from tests.runs import SMALL_YAML

CLAIM = """\
claims:
  - {id: a, says: BatchNorm is better, metric: test/running/accuracy, better: bn, worse: gn,
     smallest_effect: 1}
"""
AT_16 = CLAIM.replace("better: bn", "better: bn@16").replace("worse: gn", "worse: gn@16")


def late(population: float) -> Callable[[schema.RunConfig], Told]:
    """After twenty steps running statistics cost BatchNorm 44 points, of which population ones
    give so many back."""

    def tell(config: schema.RunConfig) -> Told:
        bn = config.setup == "bn"
        value = 0.3 if bn else 0.7
        gap, given = (-0.44, population) if bn else (0.0, 0.0)
        return Told(curve=(value,), test=value, gap=gap, population=given, steps=20)

    return tell


def told(path: Path, tell: Callable[[schema.RunConfig], Told], text: str = CLAIM) -> list[str]:
    """The notices of a study of eight seeds that speak of eval mode."""
    found = notices(answered(path, f"seeds: 8\n{text}", tell))
    return [each for each in found if "eval mode is" in each]


def test_statistics_that_have_not_caught_up_are_told_whatever_is_claimed(tmp_path: Path) -> None:
    (said,) = told(tmp_path, late(0.43))
    assert said.startswith(
        "bn: eval mode is 44.0 points worse than training mode on validation images (95 % interval "
        "44.0 to 44.0, 8 seeds). With population statistics (precise BN) it has 73.0 % instead of "
        "30.0 %: the running statistics have not caught up: after 20 steps at momentum 0.1 their "
        f"initial values still weigh {100 * 0.9**20:.1f} %. Train for more steps, or raise "
        "norm.momentum; `bnbench diagnose "
    )
    assert said.endswith("--fix FILE` recalibrates them.")
    run = said.partition("bnbench diagnose ")[2].split()[0]
    assert (Path(run) / "result.json").exists()


def test_enough_steps_are_no_reason(tmp_path: Path) -> None:
    momentum = SETUPS.replace("kind: batch", "kind: batch, momentum: 0.2")
    record = answered(tmp_path, f"seeds: 8\n{CLAIM}", late(0.43), momentum)
    (said,) = [each for each in notices(record) if "eval mode is" in each]
    assert "are not those of the final weights" in said  # 0.8²⁰ is 1.2 %
    assert "caught up" not in said


def test_a_gap_that_population_statistics_leave_has_another_reason(tmp_path: Path) -> None:
    (said,) = told(tmp_path, late(0.2))
    assert "Population statistics (precise BN) do not close it: 50.0 % instead of 30.0 %" in said
    assert "caught up" not in said


@pytest.mark.parametrize(("gap", "remarks"), [(-0.04, 0), (-0.06, 1), (0.06, 1), (0.0, 0)])
def test_a_small_gap_is_no_remark_beside_claims(tmp_path: Path, gap: float, remarks: int) -> None:
    found = told(tmp_path, lambda config: Told(gap=gap * (config.setup == "bn")))
    assert len(found) == remarks
    if gap > 0:
        assert found[0].endswith("(95 % interval 6.0 to 6.0, 8 seeds).")


def test_every_large_gap_is_told_where_eval_mode_is_worse_and_where_it_is_better(
    tmp_path: Path,
) -> None:
    gaps = {2: 0.09, 8: -0.06, 16: -0.12}
    found = told(
        tmp_path,
        lambda config: Told(gap=gaps[config.data.batch_size] * (config.setup == "bn")),
        f"{SIZES}{AT_16}",
    )
    worse, better = found
    assert worse.startswith("bn (batch size 16): eval mode is 12.0 points worse than training mode")
    assert "12.0, 8 seeds); bn (batch size 8) by 6.0. " in worse
    assert better.startswith("bn (batch size 2): eval mode is 9.0 points better than")


def test_without_claims_it_is_in_the_answer_once(tmp_path: Path) -> None:
    record = answered(tmp_path, "seeds: 3\n", late(0.43))
    assert not [each for each in notices(record) if "eval mode is" in each]
    assert "have not caught up" in record["answer"][-1]


def test_a_sweep_ends_with_the_gap_and_what_population_statistics_give(tmp_path: Path) -> None:
    study = read_study(invented(tmp_path, f"{SMALL_YAML}{SETUPS}seeds: 3\n{CLAIM}", late(0.43)))
    lines = printed(closing_tables(study), 80)
    text = " ".join(" ".join(lines).split())
    assert "bn: eval mode is 44.0 points worse than training mode on validation images" in text
    (row,) = [n for n, line in enumerate(lines) if line.startswith(" bn ") and "[" in line]
    assert "30.0 [30.0, 30.0]" in lines[row]
    assert lines[row + 1].split() == ["→", "73.0", "[73.0,", "73.0]"]
    assert "→: the same with population statistics (precise BN)" in text


def test_tables_have_population_statistics_where_they_differ(tmp_path: Path) -> None:
    record = answered(tmp_path, f"seeds: 3\n{CLAIM}", late(0.43))
    bn, gn = record["cells"]
    assert bn["metrics"]["population_accuracy"]["mean"] == pytest.approx(0.73)
    assert gn["metrics"]["population_accuracy"]["mean"] == pytest.approx(0.7)
    for text in (as_markdown(record), as_latex(record), page(Report(record, []))):
        assert text.count("precise BN") >= 1
        assert "30.0" in text
        assert "73.0" in text
    shown = "\n".join(printed(terminal(record), 80))
    assert shown.count("→ 7") == 1, "that of gn is the same"
    (tmp_path / "same").mkdir()
    same = answered(tmp_path / "same", f"seeds: 3\n{CLAIM}", late(0.009))
    assert "→" not in "\n".join(printed(terminal(same), 80))
    assert "→" not in as_markdown(same)


def test_other_numbers_of_steps_are_told_beside_claims(tmp_path: Path) -> None:
    def tell(config: schema.RunConfig) -> Told:
        return Told(steps={2: 1500, 8: 370, 16: 93}[config.data.batch_size])

    found = notices(answered(tmp_path, f"{SIZES}seeds: 8\n{AT_16}", tell))
    assert [each for each in found if "batch size 2 takes 1,500 steps, 16 takes 93" in each]


def test_chosen_ends_of_grids_are_told_beside_claims(tmp_path: Path) -> None:
    """At batches of 2 the largest rate is the best, at 16 the middle one."""

    def tell(config: schema.RunConfig) -> Told:
        best = 1.0 if config.data.batch_size == 2 else 0.1
        value = 0.7 if config.optim.lr == best else 0.6
        return Told(curve=(value,), test=value)

    axes = "axes: {data.batch_size: [2, 16], optim.lr: [0.01, 0.1, 1.0]}\ntune: {axis: optim.lr}\n"
    found = notices(answered(tmp_path, f"{axes}seeds: 8\n{AT_16}", tell))
    assert (
        "The chosen learning rate of bn at batch size 2 and gn at batch size 2 is an end of its "
        "grid: a better one may lie beyond (add 10 to optim.lr in the file, and sweep again)."
    ) in found


def lame(config: schema.RunConfig) -> Told:
    """GroupNorm does not learn, or diverges in a seed of four."""
    if config.setup == "bn":
        return Told(curve=(0.7,), test=0.7)
    return Told(curve=(0.25,), test=0.25, state="completed" if config.seed % 4 else "diverged")


REFUTED = CLAIM.replace("better: bn, worse: gn", "better: gn, worse: bn")


@pytest.mark.parametrize(("claim", "outcome"), [(CLAIM, "supported"), (REFUTED, "refuted")])
def test_a_side_that_never_learned_at_its_one_rate(
    tmp_path: Path, claim: str, outcome: str
) -> None:
    record = answered(tmp_path, f"seeds: 8\n{claim}", lame)
    (found,) = record["claims"]
    assert found["outcome"] == outcome
    remark = "gn: 8 of 8 runs did not learn at learning rate 0.1, and no other was tried"
    assert found["remarks"] == [f"{remark} (tune: {{axis: optim.lr}})"]
    (said,) = record["answer"]
    assert said.startswith(f"{outcome.capitalize()} at one learning rate: BatchNorm is better (")
    assert said.endswith(f" {remark} (tune: {{axis: optim.lr}}).")
    shown = " ".join(" ".join(printed(terminal(record), 80)).split())
    assert f"{outcome} at one learning rate: BatchNorm is better" in shown
    assert f"but: {remark}" in shown
    assert f"But {remark}" in page(Report(record, []))


def test_a_verdict_says_in_its_sentence_what_its_sides_did_not_share(tmp_path: Path) -> None:
    """Between batch sizes the steps differ; one seed of three is at chance."""

    def tell(config: schema.RunConfig) -> Told:
        size = config.data.batch_size
        value = 0.26 if size == 2 and config.seed < 2 else 0.7 - 0.1 * (size == 2)
        return Told(curve=(value,), test=value, steps={2: 1500, 16: 93}[size])

    claims = CLAIM.replace("bn, worse: gn", "bn@16, worse: bn@2")
    claims += AT_16.removeprefix("claims:\n").replace("id: a", "id: b")
    sizes = "axes: {data.batch_size: [2, 16]}\n"
    study = read_study(invented(tmp_path, f"{SMALL_YAML}{SETUPS}{sizes}seeds: 8\n{claims}", tell))
    record = recorded(study)
    said = "; 93 steps of bn at batch size 16 against 1,500 of bn at batch size 2; "
    said += "bn at batch size 2: 2 of 8 at chance"
    assert [each["conditions"] for each in record["claims"]] == [said.split("; ")[1:], []]
    closing = "\n".join(map(str, closing_verdicts(study, columns=1000)))
    for text in (
        " ".join(" ".join(printed(terminal(record), 80)).split()),
        page(Report(record, [])).replace("\u00a0", " "),
        as_markdown(record),
        as_latex(record),
        record["answer"][0],
        " ".join(closing.split()),
    ):
        assert said in text
    (alone,) = record["further"]
    assert alone.startswith("This compares 1,500 steps with 93; for statistics alone, ")
    assert record["answer"][2:] == [alone]
    for shown in (printed(terminal(record), 80), closing.splitlines()):
        assert " ".join(" ".join(shown).split()).count(alone) == 1


@pytest.mark.parametrize("sides", ["bn@16, worse: gn@16", "gn@16, worse: gn@2"])
def test_statistics_alone_are_of_no_claim_at_one_batch_size_or_without_batches(
    tmp_path: Path, sides: str
) -> None:
    claims = CLAIM.replace("bn, worse: gn", sides)
    sizes = "axes: {data.batch_size: [2, 16]}\n"
    text = f"{SMALL_YAML}{SETUPS}{sizes}seeds: 8\n{claims}"
    record = recorded(read_study(invented(tmp_path, text, lambda _: Told(test=0.6))))
    assert len(record["answer"]) == 1
    assert record["further"] == []


@pytest.mark.parametrize("looks", ["", "looks: [6, 8]\n"])
def test_undecided_claims_are_decided_on_seeds_that_nobody_has_seen(
    tmp_path: Path, looks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a command that can be typed; not where fewer seeds will do, or others would not."""

    def told_of(better: float, text: str) -> list[str]:
        here = tmp_path / f"{better}{text.strip()[-1]}"
        here.mkdir()
        monkeypatch.chdir(here)

        def tell(config: schema.RunConfig) -> Told:
            off = better + 0.02 * (-1) ** config.seed
            return Told(test=0.6 + off * (config.setup == "bn"))

        study = read_study(invented(Path(), f"{SMALL_YAML}{SETUPS}{looks}{text}{CLAIM}", tell))
        shown = " ".join("\n".join(map(str, closing_verdicts(study, columns=1000))).split())
        record = recorded(study)
        assert all(each in shown for each in record["further"])
        return [*record["further"]]

    (said,) = told_of(0.02, "seeds: 8\n")
    typed = split(said.partition("`")[2].partition("`")[0])
    assert typed[:3] == ["bnbench", "sweep", "runs/x/experiment.yaml"]
    overrides = [value for option, value in pairwise(typed) if option == "--set"]
    most = int(typed[typed.index("--max-seeds") + 1])
    (planned,) = plan_all(
        typed[2],
        Overrides(set=tuple(overrides)),
        max_runs=1000,
        runs_dir=Path("runs"),
        say=print,
        until="decided",
        max_seeds=most,
    )
    assert planned.folder.path == Path("runs/x-2")
    assert list(planned.experiment.seeds) == list(range(8, 8 + most))
    assert told_of(0.05, "seeds: 8\n") == [], "supported"
    assert told_of(0.01, "seeds: 8\n") == [], "so near to the smallest effect that no seeds do"
    assert looks or told_of(0.02, "seeds: 5\n") == [], "six are allowed"


def test_a_rate_that_was_asked_for_or_chosen_is_no_remark(tmp_path: Path) -> None:
    asked = "axes: {optim.lr: [0.1, 1.0]}\n"
    at = CLAIM.replace("smallest_effect", "at: {optim.lr: 0.1}, smallest_effect")
    for n, text in enumerate((asked + at, f"{asked}tune: {{axis: optim.lr}}\n{CLAIM}")):
        (tmp_path / str(n)).mkdir()
        (found,) = answered(tmp_path / str(n), f"seeds: 8\n{text}", lame)["claims"]
        assert found["remarks"] == []
    (tmp_path / "few").mkdir()

    def mostly(config: schema.RunConfig) -> Told:
        return lame(config) if config.seed < 4 else Told(curve=(0.5,), test=0.5)

    (found,) = answered(tmp_path / "few", f"seeds: 8\n{CLAIM}", mostly)["claims"]
    assert found["remarks"] == [], "half of them learned"


@pytest.mark.parametrize(
    ("steps", "warmup", "said"),
    [
        (20, 0.05, "for 1 step of 20 (optim.warmup: 0.05): try optim.warmup: 0.25, or a lower"),
        (20, 0.0, "for 0 steps of 20 (optim.warmup: 0): try optim.warmup: 0.25, or a lower"),
        (20, 0.25, None),
        (100, 0.05, None),
        (2, 0.3, "for 1 step of 2 (optim.warmup: 0.3): try optim.warmup: 0.5, or a lower optim.lr"),
    ],
)
def test_a_short_warm_up_of_what_diverged_is_told(
    tmp_path: Path, steps: int, warmup: float, said: str | None
) -> None:
    text = SMALL_YAML.replace("epochs: 2", f"steps: {steps}") + f"optim: {{warmup: {warmup}}}\n"

    def lame_at_once(config: schema.RunConfig) -> Told:
        """GroupNorm diverges in one seed of three."""
        lost = config.setup == "gn" and config.seed == 1
        return Told(state="diverged" if lost else "completed", steps=steps)

    study = read_study(invented(tmp_path, f"{text}{SETUPS}seeds: 3\n", lame_at_once))
    hints = [line for line in short_warmups(study) if "the learning rate rises" in line]
    assert len(hints) == (said is not None)
    closing = " ".join(" ".join(printed(closing_tables(study), 80)).split())
    assert ("optim.warmup" in closing) == (said is not None)
    if said is not None:
        assert said in hints[0]
        (notice,) = [each.text for each in notices_of(study, [], None) if "diverged" in each.text]
        assert notice.endswith(hints[0])
