"""What training costs, a row for each setup."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from bnbench.report.figures import style
from bnbench.report.figures.along import draw_rows
from bnbench.report.selection import at, readings, tuned_cells
from bnbench.report.study import Study
from bnbench.report.tuning import Tuned

QUANTITIES = {
    "images_per_second": "training images per second (higher is better)",
    "train_seconds": "seconds of training (lower is better)",
}


def costs(study: Study, choices: Sequence[Tuned]) -> Figure | None:
    """Images a second and seconds of training at each setup's best cell on validation.

    None without a completed run.
    """
    cells = tuned_cells(study, choices)
    best = [(setup, cell) for setup in study.setups if (cell := at(cells, setup, {})) is not None]
    looks = style.looks(study)
    rows = {
        name: [(setup, found) for setup, cell in best if (found := readings(cell.runs, name))]
        for name in QUANTITIES
    }
    if not all(rows.values()):
        return None
    most = max(map(len, rows.values()))
    figure, panels = style.panels(
        2,
        columns=2,
        height=0.7 + 0.3 * most,
        left=style.room_for([setup[:32] for setup, _ in best], style.SMALL),
        share_y=True,
    )
    for axes, (name, shown) in zip(panels, rows.items(), strict=True):
        draw_rows(axes, shown, looks)
        style.count_on_x(axes)
        axes.set_xlim(left=0, right=1.15 * max(value for _, values in shown for value in values))
        axes.set_xlabel(QUANTITIES[name])
    for label in panels[1].get_yticklabels():
        label.set_visible(False)
    return figure
