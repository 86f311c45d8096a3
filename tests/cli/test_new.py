"""`bnbench new`: studies that are sound as they are written, and whose examples train."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnbench.config import drafts, files, schema
from tests.commands import Said, bnbench
from tests.extras import required
from tests.processes import in_terminal

pytestmark = pytest.mark.usefixtures("own_folder")
NEW = (sys.executable, "-m", "bnbench", "new")
ALL_OWN = ("--compare", "batch,group,own", "--model", "own", "--data", "own")


def pictures(folder: Path) -> None:
    """80 training and 10 test images of each of two classes."""
    for part, count in (("train", 80), ("test", 10)):
        for name in ("a", "b"):
            folder.joinpath(part, name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 8), i, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--batch-sizes", "8", "--worse", "group"),
        ("--compare", "batch", "--better", "batch@32", "--worse", "batch@2"),
        ("--compare", "batch"),
        ("--compare", ",".join(drafts.norms()), "--better", "own", "--worse", "none"),
        ("--data", "my pictures", "--model", "mlp", "--batch-sizes", "4"),
        ALL_OWN,
        ("--model", "torchvision:shufflenet_v2_x0_5", "--compare", "instance,rms,own"),
        ("--model", "timm:test_resnet"),
    ],
    ids=" ".join,
)
def test_what_is_written_is_sound(options: tuple[str, ...]) -> None:
    if "timm:test_resnet" in options:
        required("timm")
    pictures(Path("my pictures"))
    Path("mine").mkdir()
    said = bnbench("new", "mine/study", *options)
    assert said.code == 0, said.err
    assert ", no faults\n" in said.out
    modeline, name, *_ = Path("mine/study.yaml").read_text().splitlines()
    beside = Path("mine") / modeline.removeprefix(files.MODELINE)
    assert json.loads(beside.read_text()) == schema.json_schema()
    assert name == "experiment: study"


@pytest.mark.parametrize("count", [15, 40, 2600])
def test_validation_images_are_a_fifth_of_a_folder(count: int, own_folder: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            own_folder.joinpath(part, name).mkdir(parents=True)
            for i in range(count):
                own_folder.joinpath(part, name, f"{i}.png").touch()
    said = bnbench("new", "study", "--data", ".", "--batch-sizes", "4,16")
    assert said.code == 0, said.err
    assert f", validation_size: {min(1000, 2 * count // 5)}}}" in Path("study.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "better", "worse", "question", "says"),
    [
        (
            (),
            "group@4",
            "batch@4",
            "At batches of 4, is GroupNorm more accurate than BatchNorm?",
            "at batches of 4 GroupNorm is more accurate than BatchNorm",
        ),
        (("--worse", "group"), "batch@4", "group@4", "At batches of 4, is BatchNorm", "at batches"),
        (
            ("--better", "batch"),
            "batch@4",
            "group@4",
            "At batches of 4, is BatchNorm",
            "at batches",
        ),
        (
            ("--compare", "batch"),
            "batch@32",
            "batch@4",
            "Is BatchNorm with statistics over 32 images more accurate than over 4?",
            "BatchNorm with statistics over 32 images is more accurate than over 4",
        ),
        (
            ("--compare", "group"),
            "group@32",
            "group@4",
            "Is GroupNorm at batches of 32 more accurate than at batches of 4?",
            "GroupNorm at batches of 32 is more accurate than at batches of 4",
        ),
        (
            ("--better", "group@4", "--worse", "batch@32"),
            "group@4",
            "batch@32",
            "Is GroupNorm at batches of 4 more accurate than BatchNorm at batches of 32?",
            "GroupNorm at batches of 4 is more accurate than BatchNorm at batches of 32",
        ),
    ],
)
def test_a_claim_is_between_norms_or_batch_sizes(
    options: tuple[str, ...], better: str, worse: str, question: str, says: str
) -> None:
    assert bnbench("new", *options).code == 0
    text = Path("my-study.yaml").read_text()
    assert f'better: "{better}"\n    worse: "{worse}"\n' in text
    assert f"    says: {says}" in text
    assert f'question: "{question}' in text


@pytest.mark.parametrize("kinds", ["batch", "group,batch"])
def test_a_norm_is_compared_with_itself_by_its_statistics_alone(kinds: str) -> None:
    """At equal steps; the lines for batches of these sizes are a study, too."""
    options = ("--better", "batch@32", "--worse", "batch@4")
    assert bnbench("new", "--compare", kinds, "--data", "own", *options).code == 0
    lines = Path("my-study.yaml").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  norm.batch_size: [4, 32] "))
    said = bnbench("configs", "check", "my-study.yaml")
    assert "2 values of norm.batch_size × 4 values of optim.lr × 24 seeds" in said.out, said.err
    assert next(line for line in lines if line.startswith("data: ")).endswith(", batch_size: 32}")
    lines[at] = lines[at + 1].partition(", where")[0].replace("# or ", "")
    Path("batches.yaml").write_text("\n".join(lines))
    said = bnbench("configs", "check", "batches.yaml")
    assert "2 values of data.batch_size × 4 values of optim.lr × 24 seeds" in said.out, said.err


@pytest.mark.parametrize(
    "options", [(), ("--compare", "group"), ("--compare", "batch", "--batch-sizes", "50,64")]
)
def test_elsewhere_batches_are_compared(options: tuple[str, ...]) -> None:
    assert bnbench("new", *options).code == 0
    text = Path("my-study.yaml").read_text()
    assert "  data.batch_size: [" in text
    assert "norm.batch_size" not in text


@pytest.mark.parametrize(
    ("named", "sizes"),
    [
        ((None, None), "4,32"),
        (("batch@32", "batch@2"), "2,32"),
        (("group@2", None), "2,32"),
        (("batch", "group@64"), "4,64"),
    ],
)
def test_batch_sizes_are_those_that_the_claim_names(
    named: tuple[str | None, str | None], sizes: str
) -> None:
    assert drafts.sizes_named(*named) == sizes


def test_statistics_are_of_batches_that_all_sizes_divide() -> None:
    said = bnbench("new", "--compare", "batch", "--batch-sizes", "4,10")
    assert said.code == 0, said.err
    text = Path("my-study.yaml").read_text()
    assert "batch_size: 20}" in text
    assert "  norm.batch_size: [4, 10] " in text
    assert "train: {examples: 3000} " in text, "150 steps"


def test_sentences_have_names_of_every_norm() -> None:
    called = {kind: drafts.called(kind) for kind in drafts.norms()}
    assert len({*called.values()}) == len(called)
    assert called["group-ws"] == "GroupNorm after convolutions with standardized weights"
    assert called["frn"].startswith("filter response normalization")
    assert not any(set("`.:;()") & set(name) for name in called.values())


@pytest.mark.parametrize(
    ("most", "lines"),
    [
        ((), ["seeds: 24 ", "looks: [6, 8, 10, 12, 15, 19, 24] "]),
        (("--seeds", "8"), ["seeds: 8 ", "looks: [6, 8] "]),
        (("--seeds", "6"), ["seeds: 6 "]),
        (("--seeds", "2"), ["seeds: 2 "]),
    ],
)
def test_seeds_are_added_until_the_claim_is_decided(
    most: tuple[str, ...], lines: list[str]
) -> None:
    """`bnbench sweep` of the file alone does it; it says how many runs there are at most."""
    said = bnbench("new", *most)
    assert said.code == 0, said.err
    assert said.out.startswith("my-study.yaml: at most ")
    text = Path("my-study.yaml").read_text().splitlines()
    found = [line for line in text if line.startswith(("seeds", "looks"))]
    assert all(map(str.startswith, found, lines))
    assert len(found) == len(lines)
    assert said.out.splitlines()[-1].startswith("bnbench sweep my-study.yaml ")


def test_its_examples_train() -> None:
    assert bnbench("new", *ALL_OWN, "--batch-sizes", "8").code == 0
    few = ("--set", "train={steps: 2, evaluations: 1}", "--over", "optim.lr=0.1", "--seeds", "1")
    said = bnbench("sweep", "my-study.yaml", *few)
    assert (said.code, said.err.splitlines()[-1]) == (
        2,
        "  or --set looks=null: judged once, at all",
    )
    said = bnbench("sweep", "my-study.yaml", *few, "--set", "looks=null")
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines()]
    # Convolutions with the biases that the norm lacks, its scales, and the head.
    parameters = 144 + 16 + 4608 + 32 + (16 + 32) + 99
    assert ["own", f"{parameters:,}", f"{parameters:,}", "2"] in rows


@pytest.mark.parametrize("there", ["my-study.yaml", "my_study_data.py"])
def test_nothing_is_overwritten(there: str) -> None:
    Path(there).write_text("mine")
    said = bnbench("new", *ALL_OWN)
    assert said == Said(2, "", f"{there} already exists\n  name another file\n")
    assert [each.name for each in Path().iterdir()] == [there]
    assert Path(there).read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("no/study.yaml",), "there is no folder no\n  name a file elsewhere"),
        (
            ("--compare", "batch", "--batch-sizes", "8"),
            "batch at batches of 8 has nothing to be compared to",
        ),
        (("--better", "batch@8", "--batch-sizes", "4,32"), "batch@8 is no setup that `new` knows"),
        (("--better", "batch@4", "--worse", "batch@4"), "--better and --worse are both batch@4"),
        (("--compare", "batch,grupe"), "grupe is no norm that `new` knows\n  did you mean group?"),
        (("--model", "timm:../x"), "timm:../x is no network that `new` knows"),
        (("--data", "nowhere"), "or a folder that holds train/ and test/"),
        (("--batch-sizes", "4,x"), "4,x: batch sizes are whole numbers from 1"),
        (("--batch-sizes", "99999"), "larger than the 9000 training images"),
        (("--seeds", "0"), "0: a whole number from 1 to 999,999 is wanted"),
        (("--better", "batch", "--worse", "batch"), "--better and --worse are both batch"),
        (("--better", "layer"), "layer is no setup that `new` knows"),
    ],
)
def test_what_no_study_can_have_is_said(options: tuple[str, ...], said: str) -> None:
    got = bnbench("new", *options)
    assert (got.code, got.out) == (2, "")
    assert said in got.err
    assert not [*Path().iterdir()]


def test_in_a_terminal_it_asks_until_it_can_read_the_answer() -> None:
    code, shown = in_terminal(*NEW, typed="grupe\nbatch,layer,none\n\n\n16\n\nnone\nlayer\n")
    assert code == 0, shown
    assert "grupe is no norm that `new` knows" in shown
    text = Path("my-study.yaml").read_text()
    assert (
        "at batches of 16 the network without normalization is more accurate than LayerNorm" in text
    )
    assert "data: {dataset: fashion-mnist-12k, batch_size: 16}" in text


def test_ctrl_d_writes_nothing() -> None:
    code, shown = in_terminal(*NEW, typed="batch,layer\n\x04")
    assert (code, shown.splitlines()[-1]) == (130, "stopped")
    assert not [*Path().iterdir()]
