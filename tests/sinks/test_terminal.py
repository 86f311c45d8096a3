"""What a person sees of a run: live in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import time

import pytest

from bnbench.cli.root import PlainConsole
from bnbench.events import Diverged, Evaluation, Fact, Moment, Step
from bnbench.machine import Pace
from bnbench.sinks.terminal import Screen

STEP = Step(loss=1.25, loss_max=2.0, lr=0.1)
EVALUATION = Evaluation(split="val", stats="running", images=4, loss=0.5, accuracy=0.75)


def moment(step: int, *facts: Fact) -> Moment:
    """64 images a step, a quarter of a second each."""
    return Moment(step=step, examples=64 * step, train_seconds=0.25 * step, facts=facts)


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has a core of its own."""
    monkeypatch.setattr(Pace, "read", lambda _: 1.0)


MOMENTS = [moment(10, STEP), moment(20, STEP, EVALUATION), moment(30, STEP)]


def printed(moments: list[Moment], *, runs: int | None = None) -> list[str]:
    """The plain lines of an invented run, one of so many."""
    file = io.StringIO()
    with Screen(PlainConsole(file=file, width=80), runs=runs) as screen:
        sink = screen.view("bn_s00_1f3a9c2e", 40)
        for each in moments:
            sink.take(each)
        sink.close()
    return file.getvalue().splitlines()


def test_without_a_terminal_a_line_is_printed_at_each_evaluation() -> None:
    moments = [*MOMENTS, moment(31, Diverged(reason="loss is not finite"))]
    diverged = "bn_s00: diverged at step 31: loss is not finite"
    evaluated = "bn_s00: step 20/40  loss 1.250  val 75.0%  256 img/s"
    assert printed(moments) == [evaluated, diverged]
    assert printed(moments, runs=2) == [diverged]


def test_a_speed_is_said_to_be_slowed_where_the_thread_has_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the system's clocks."""
    monkeypatch.undo()
    file = io.StringIO()
    with Screen(PlainConsole(file=file, width=80)) as screen:
        sink = screen.view("bn_s00_1f3a9c2e", 40)
        sink.take(moment(10, STEP))
        time.sleep(0.2)
        sink.take(moment(20, STEP, EVALUATION))
    assert file.getvalue().endswith("256 img/s, slowed by other work or waiting\n")


def test_several_runs_without_a_terminal_have_one_line_with_an_estimate() -> None:
    file = io.StringIO()
    with Screen(PlainConsole(file=file, width=80), runs=4) as screen:
        for left in (None, 40.0, 20.0, 0.0):
            screen.advance(done=1, diverged=0, failed=0, seconds_left=left, busy=left == 40)
    assert file.getvalue() == "1 of 4, 40 s left, slowed by other work or waiting\n"


def test_the_loss_is_that_of_the_last_report_or_evaluation() -> None:
    """With reports that are rarer than evaluations it would stand still."""
    moments = []
    for step, loss in ((1, 2.0), (2, 1.5)):
        train = Evaluation(split="train", stats="batch", images=4, loss=loss, accuracy=0.5)
        other = Evaluation(split="train", stats="running", images=4, loss=9.0, accuracy=0.1)
        moments.append(moment(step, train, other, EVALUATION))
    assert printed(moments) == [
        "bn_s00: step 1/40  loss 2.000  val 75.0%",
        "bn_s00: step 2/40  loss 1.500  val 75.0%",
    ]


def test_a_terminal_gets_one_live_line_that_fits_80_columns_and_goes_away() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=80, force_terminal=True, color_system=None)
    with Screen(console) as screen:
        sink = screen.view("bn-before_s00_1f3a9c2e", 40)
        for each in MOMENTS:
            sink.take(each)
        progress = screen.lines
        assert progress is not None
        progress.refresh()
        shown = file.getvalue()
        assert "75%" in shown
        assert "loss 1.250  val 75.0%  256 img/s" in shown
        assert len(progress.tasks) == 1
        sink.close()
        assert not progress.tasks


def test_of_more_runs_than_lines_the_slowest_are_shown_and_the_line_for_all() -> None:
    file = io.StringIO()
    console = PlainConsole(
        file=file, width=80, height=6, force_terminal=True, color_system=None, legacy_windows=False
    )
    with Screen(console, runs=9) as screen:
        for seed in range(8):
            sink = screen.view(f"bn_s{seed:02}_1f3a9c2e", 40)
            for step in (10, 20 + seed if seed != 6 else 11):
                sink.take(moment(step, STEP))
        screen.advance(done=1, diverged=0, failed=1, seconds_left=40.0, busy=False)
        before = len(file.getvalue())
        assert screen._live is not None
        screen._live.refresh()
        shown = file.getvalue()[before:]
    assert [seed for seed in range(8) if f"bn_s{seed:02} " in shown] == [0, 1, 6]
    assert "and 5 more, which are ahead of these" in shown
    assert "1 of 9, 1 failed, 40 s left, 2,048 img/s" in shown
