"""Published numbers beside ours: which runs count, where one more run would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bnbench.config import loading, schema
from bnbench.errors import ConfigError
from bnbench.report.published import one_more
from bnbench.report.reading import read_study
from tests.commands import bnbench
from tests.report.invented import Told, invented, recorded

TEXT = """\
setups: {bn: {norm: {kind: batch}}, gn: {norm: {kind: group}}}
axes: {data.batch_size: [32, 64]}
seeds: 4
published:
  - {says: BN at 32, metric: test/running/accuracy, of: bn@32, values: [61.5, 20], source: a book}
"""


def tell(config: schema.RunConfig) -> Told:
    base = 0.6 if config.setup == "bn" and config.data.batch_size == 32 else 0.1
    return Told(test=base + 0.01 * config.seed)


def test_the_runs_of_the_arm_stand_beside_what_is_published(tmp_path: Path) -> None:
    folder = invented(tmp_path, TEXT, tell)
    (row,) = recorded(read_study(folder))["published"]
    ours = row["ours"]
    low, high = stats.norm.fit([60, 61, 62, 63])[0] + np.array([-1, 1]) * (
        stats.t(3).ppf(0.975) * np.std([60, 61, 62, 63], ddof=1) * (1 + 1 / 4) ** 0.5
    )
    assert ours["one_more"] == pytest.approx([low, high])
    assert (ours["n"], ours["low"], ours["median"], ours["high"]) == pytest.approx(
        (4, 60, 61.5, 63)
    )
    assert (row["values"], row["unit"], ours["below"]) == ([61.5, 20], "points", [2, 0])
    said = bnbench("report", "x", "--runs-dir", str(folder.path.parent)).out
    printed = " ".join(said.split())
    assert "published: BN at 32: 61.5 and 20 %; ours 61.5 (median), 60 to 63 in 4 runs" in printed
    page = (folder.path / "report.html").read_text()
    assert "BN at 32: 61.5 and 20" in page.replace("\u00a0", " ")
    assert "(a book)" in page


def test_a_run_that_diverged_counts_and_leaves_no_interval(tmp_path: Path) -> None:
    def told(config: schema.RunConfig) -> Told:
        return Told(state="diverged") if config.seed == 0 else tell(config)

    (row,) = recorded(read_study(invented(tmp_path, TEXT, told)))["published"]
    assert (row["ours"]["n"], row["ours"]["low"]) == (4, "-inf")
    assert (row["ours"]["one_more"], row["ours"]["below"]) == (None, [2, 1])


def test_one_more_value_is_inside_95_times_of_100() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(3, 2, (4000, 9))
    inside = [
        low <= row[-1] <= high
        for row in draws
        for low, high in [one_more([*map(float, row[:-1])]) or (0, 0)]
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)
    assert one_more([1.0, 2.0]) is None


def test_it_is_kept_with_the_study(tmp_path: Path) -> None:
    folder = invented(tmp_path, TEXT, tell, "optim.lr=0.2")  # overridden: written anew
    (kept,) = loading.load_experiment(folder.file).published
    assert (kept.values, str(kept.arm)) == ((61.5, 20), "bn@data.batch_size=32")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bn@32", "bm@32", "published[0].of: bm is not a setup"),
        ("test/running/accuracy", "test/accuracy", 'published[0].metric "test/accuracy" is not a'),
        ("test/running/accuracy", "usable_lr_max", "published[0].metric usable_lr_max is of many"),
        ("[61.5, 20]", "[]", "published[0].values"),
    ],
)
def test_mistakes_have_their_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        loading.load_experiment(file)
    assert said in str(caught.value)
