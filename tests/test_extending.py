"""A normalization, a probe and a sink are added in a copy of the checkout, through the places that
`bnbench/README.md` names and no others, and then a run has all three."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import completed

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extending")]

LAYER = '''\
"""RMS normalization to another size."""

from __future__ import annotations

from torch import Tensor

from bnbench.norms.group import RMSNorm


class SizedRMSNorm(RMSNorm):
    """RMSNorm, then times a constant.

        ŷ = size·y

    Source: none, an example.
    """

    def __init__(
        self, channels: int, *, size: float = 1.0, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.size = size

    def forward(self, input: Tensor) -> Tensor:
        return self.size * super().forward(input)
'''
PROBE = '''\
"""How large the weights are."""

from __future__ import annotations

from torch import nn

from bnbench.events import Reading


def read(model: nn.Module) -> list[Reading]:
    """The norm of each parameter."""
    return [
        Reading(probe="weight_size", layer=name, name="norm", value=weights.norm().item())
        for name, weights in model.named_parameters()
    ]
'''
TWIN = '''\
"""The size of weights against a loop."""

from __future__ import annotations

from math import sqrt

import pytest

from bnbench.probes import weight_size
from tests.probes.examples import network


def test_it_is_the_root_of_the_sum_of_squares() -> None:
    model = network()
    found = {reading.layer: reading.value for reading in weight_size.read(model)}
    for name, weights in model.named_parameters():
        assert found[name] == pytest.approx(sqrt(sum(w * w for w in weights.flatten().tolist())))
'''
SINK = '''\
"""Losses as text."""

from __future__ import annotations

from pathlib import Path

from bnbench.events import Moment, Step


class TextSink:
    """One line per report."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def take(self, moment: Moment) -> None:
        """Write the loss down."""
        for fact in moment.facts:
            if isinstance(fact, Step):
                self._file.write(f"{moment.step} {fact.loss}\\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
'''
EXPERIMENT = """\
data:
  dataset: synthetic
  train_images: 96
  test_images: 32
  classes: 4
  image_size: 8
  validation_size: 32
  batch_size: 8
model: {widths: [4, 8], blocks: 1}
train: {steps: 4, evaluations: 2, log_every: 1}
norm: {kind: sized-rms, size: 2.0}
probes: {weight_size: {every: 1}}
"""


def insert(path: Path, before: str, text: str) -> None:
    """Put text in front of the one place that reads `before`."""
    content = path.read_text()
    assert content.count(before) == 1, f"{path.name}: {content.count(before)} times {before!r}"
    path.write_text(content.replace(before, text + before))


def add_a_normalization(package: Path, tests: Path) -> None:
    """Its class; its settings, also in the union; its case; its test row."""
    (package / "norms/sized.py").write_text(LAYER)
    settings = package / "config/schema/norm.py"
    insert(
        settings,
        "class CustomNormConfig(",
        "class SizedRMSNormConfig(PlacedNorm):\n"
        '    """RMSNorm to another size. Layer: `norms.sized.SizedRMSNorm`."""\n\n'
        '    kind: Literal["sized-rms"]\n'
        '    size: Positive = Field(1.0, description="root mean square of the output")\n\n\n',
    )
    insert(settings, "    | CustomNormConfig,\n", "    | SizedRMSNormConfig\n")
    assembly = package / "assemble/model.py"
    insert(assembly, "from bnbench.norms import ", "from bnbench.norms import sized\n")
    insert(
        assembly,
        "        case schema.CustomNormConfig():\n",
        "        case schema.SizedRMSNormConfig():\n"
        "            return partial(sized.SizedRMSNorm, **keys)\n",
    )
    insert(
        tests / "norms/rows.py",
        '    "batch": Row(',
        '    "sized-rms": Row(lambda _: ImageRMSNorm(), ONE_VALUE, {"size": 1.0}),\n',
    )


def add_a_probe(package: Path, tests: Path) -> None:
    """Its file; its settings; its case; its twin and its line in the tests that no probe leaves a
    trace."""
    (package / "probes/weight_size.py").write_text(PROBE)
    settings = package / "config/schema/probes.py"
    insert(
        settings,
        "class HistogramsProbe(",
        'class WeightSizeProbe(Probe):\n    """How large the weights are."""\n\n\n',
    )
    insert(settings, "    | HistogramsProbe\n", "    | WeightSizeProbe\n")
    insert(
        settings,
        "    histograms: HistogramsProbe",
        '    weight_size: WeightSizeProbe | bool = _off("how large the weights are")\n',
    )
    assembly = package / "assemble/probes.py"
    insert(assembly, "from bnbench.probes import (", "from bnbench.probes import weight_size\n")
    insert(
        assembly,
        "        case schema.HistogramsProbe():\n",
        "        case schema.WeightSizeProbe():\n"
        "            return lambda _: weight_size.read(model)\n",
    )
    (tests / "probes/test_weight_size.py").write_text(TWIN)
    no_trace = tests / "probes/test_no_trace.py"
    insert(no_trace, "from bnbench.probes import (", "from bnbench.probes import weight_size\n")
    insert(
        no_trace,
        '        "histograms": lambda m, _:',
        '        "weight_size": lambda m, _: weight_size.read(m),\n',
    )


def add_a_sink(package: Path) -> None:
    """Its class, and its line where sinks are chosen."""
    (package / "sinks/text.py").write_text(SINK)
    chosen = package / "runner/execution.py"
    insert(chosen, "from bnbench.sinks.metrics import", "from bnbench.sinks.text import TextSink\n")
    insert(
        chosen,
        "    if settings.view is not None:\n",
        '    kept = partial(TextSink, folder.path / "losses.txt")\n'
        "    yield OptionalSink(kept, settings.announce)\n",
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout with all three."""
    path = tmp_path_factory.mktemp("checkout")
    for name in ("bnbench", "configs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", path)
    add_a_normalization(path / "bnbench", path / "tests")
    add_a_probe(path / "bnbench", path / "tests")
    add_a_sink(path / "bnbench")
    return path


def run(copy: Path, *module: str) -> str:
    """What a module of the copy prints."""
    return completed(sys.executable, "-m", *module, cwd=copy).stdout


def test_a_run_has_all_three(copy: Path) -> None:
    (copy / "added.yaml").write_text(EXPERIMENT)
    run(copy, "bnbench", "train", "added.yaml", "--quiet")
    (folder,) = (copy / "runs" / "added").glob("*_*")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    sizes = [record for record in records if record.get("probe") == "weight_size"]
    assert {record["step"] for record in sizes} == {0, 2, 4}
    losses = [f"{each['step']} {each['loss']}" for each in records if each["event"] == "step"]
    assert (folder / "losses.txt").read_text().splitlines() == losses
    assert len(losses) == 4
    assert json.loads((folder / "result.json").read_text())["state"] == "completed"
    assert "RMSNorm to another size" in run(copy, "bnbench", "explain", "sized-rms")


def test_a_misspelling_of_what_was_added_is_found(copy: Path) -> None:
    (copy / "wrong.yaml").write_text(EXPERIMENT.replace("sized-rms", "sized-rm"))
    command = (sys.executable, "-m", "bnbench", "train", "wrong.yaml")
    assert "sized-rms" in completed(*command, cwd=copy, code=2).stderr


def test_no_test_needs_a_further_place_or_has_a_list_of_kinds_by_hand(copy: Path) -> None:
    """The quick ones of each kind, in one process; what follows from the schema is rewritten, as a
    contributor does."""
    (copy / "configs/schema.json").write_text(run(copy, "bnbench", "configs", "schema"))
    of_what_was_added = "every_kind or sized or SizedRMS or weight_size"
    whole = "config and not assemble or test_no_trace or test_explain or test_architecture"
    run(
        copy,
        *("pytest", "-q", "-x", "-p", "no:cacheprovider"),
        *("-m", "not slow and not browser", "-k", f"{of_what_was_added} or {whole}"),
        *("tests/norms/test_properties.py", "tests/assemble", "tests/probes/test_weight_size.py"),
        *("tests/probes/test_no_trace.py", "tests/config", "tests/cli/test_explain.py"),
        *("tests/test_architecture.py", "--ignore=tests/config/test_fuzz.py"),
    )
