"""Paired differences: what each verdict rests on, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isinf

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bnbench.report.figures import style
from bnbench.report.verdicts import Judged
from bnbench.stats.differences import SEEDS_FOR_AN_INTERVAL
from bnbench.wording import counted, listing

MOST = 24
LETTERS = 84
"""That fit above a strip."""
DOT = style.SLATE


def paired_differences(claims: Sequence[Judged]) -> Figure | None:
    """A strip for each claim, in its own unit: a dot for each seed, mean or median with interval,
    ± the smallest effect shaded, infinite differences as arrows at the edge. None without any."""
    shown = [each for each in claims if each.pairs][:MOST]
    if not shown:
        return None
    few = all(len(each.pairs) < SEEDS_FOR_AN_INTERVAL for each in shown)
    effects = [each.verdict.effect for each in shown if each.verdict.effect is not None]
    kinds = dict.fromkeys("median" if each.mean is None else "mean" for each in effects)
    middle = listing(sorted(kinds)) if kinds else "mean"
    handles: list[Line2D | Patch] = [
        style.symbol("one seed", ".", color=DOT, ms=7, alpha=0.55),
        Line2D(
            [],
            [],
            color=style.INK,
            marker="D",
            ms=4.5,
            lw=1.6,
            label=middle if few else f"{middle} and interval",
        ),
        Patch(facecolor=style.FAINT, alpha=0.22, label="too small to matter"),
    ]
    if any(isinf(value) for each in shown for value in each.pairs.values()):
        handles.insert(1, style.symbol("infinite", ">", color=DOT, ms=5))
    figure, panels = style.panels(
        len(shown), handles, columns=1, height=1.05, left=0.15, labelled=False
    )
    for axes, each in zip(panels, shown, strict=True):
        _strip(axes, each)
    return figure


def differences_caption(claims: Sequence[Judged]) -> str:
    """What the strips show: true of these claims."""
    shown = [each for each in claims if each.pairs][:MOST]
    said = [
        "A dot is one seed's difference; to the right of the zero line it favours the claim (for a "
        "two-sided one: what it names first)."
    ]
    effects = [each.verdict.effect for each in shown if each.verdict.effect is not None]
    few = all(effect.n < SEEDS_FOR_AN_INTERVAL for effect in effects)
    if means := [effect for effect in effects if effect.mean is not None]:
        sure = listing(dict.fromkeys(f"{100 * effect.coverage:.3g} %" for effect in means))
        interval = "" if few else f", with its {sure} interval"
        said.append(f"Diamond: the mean{interval}; tick: the median.")
    if any(effect.over_images is not None for effect in effects):
        said.append("Thin line: the interval over seeds and images.")
    if any(effect.mean is None for effect in effects):
        interval = "" if few else ", with the interval that the table tells"
        said.append(f"Where a side is infinite, the diamond is the median{interval}.")
        said.append("Arrows: on to infinity.")
    said.append("An effect inside of the shaded range is too small to matter.")
    if len(shown) < len(claims):
        said.append(f"Not drawn: {counted(len(claims) - len(shown), 'claim')}, see the table.")
    return " ".join(said)


def _strip(axes: Axes, each: Judged) -> None:
    values, effect = list(each.pairs.values()), each.verdict.effect
    finite = [value for value in values if isfinite(value)]
    smallest = each.claim.smallest_effect
    middle, ends = None, list[float]()
    if effect is not None:
        middle = effect.median if effect.mean is None else effect.mean
        ends = [*effect.interval] if len(values) >= SEEDS_FOR_AN_INTERVAL else []
    wide = [] if effect is None or effect.over_images is None else [*effect.over_images]
    low, high = _range(finite, ends if middle is None else [middle, *ends, *wide], smallest)
    axes.set_xlim(low, high)
    axes.set_ylim(-1.0, 1.0)
    axes.axvspan(-smallest, smallest, color=style.FAINT, alpha=0.22, lw=0)
    axes.axvline(0, color=style.FAINT, lw=1)
    for sign, marker, edge in ((1, ">", high), (-1, "<", low)):
        count = sum(isinf(value) and value * sign > 0 for value in values)
        if count:
            axes.plot([edge], [0.45], marker=marker, color=DOT, ms=6, ls="", clip_on=False)
            axes.annotate(
                str(count),
                (edge, 0.45),
                xytext=(-7 * sign, -2.5),
                textcoords="offset points",
                ha="right" if sign > 0 else "left",
                fontsize=7,
            )
    # Dots at several heights, so that equal ones can be counted.
    heights = [0.45 + 0.12 * ((place % 3) - 1) for place in range(len(finite))]
    axes.plot(finite, heights, ls="", marker=".", ms=7, color=DOT, alpha=0.55)
    if ends:
        bounds = [min(max(end, low), high) for end in ends]
        axes.plot(bounds, [-0.4, -0.4], color=style.INK, lw=1.6)
        for bound, end, marker in zip(bounds, ends, "<>", strict=True):
            if bound != end:
                axes.plot([bound], [-0.4], marker, color=style.INK, ms=5, clip_on=False)
    if wide:
        axes.plot([min(max(end, low), high) for end in wide], [-0.65] * 2, color=style.INK, lw=0.8)
    if effect is not None and effect.mean is not None:
        axes.plot([effect.median], [-0.4], "|", color=style.INK, ms=11)
    if middle is not None and isfinite(middle):
        axes.plot([middle], [-0.4], marker="D", ms=4.5, color=style.INK, ls="")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    unit = f" ({each.unit})" if each.unit else ""
    axes.set_title(f"{style.shortened(each.claim.says, LETTERS - len(unit))}{unit}")


def _range(finite: list[float], summary: list[float], smallest: float) -> tuple[float, float]:
    """What is shown: all differences, the smallest effect, and the interval unless it is wide."""
    shown = [*finite, 0.0, 1.3 * smallest, -1.3 * smallest, *filter(isfinite, summary)]
    low, high = min(shown), max(shown)
    room = 0.06 * (high - low) or 1.0
    low, high = low - room, high + room
    if finite and summary:  # with few seeds, nothing but the interval would be seen
        most = 4 * (max(*finite, smallest, 0.0) - min(*finite, -smallest, 0.0) or 1.0)
        low, high = max(low, -most), min(high, most)
    return low, high
