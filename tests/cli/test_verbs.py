"""The command line as its users type it: what is said, where, and with which exit code."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from bnbench import __version__, store
from bnbench.store import ExperimentFolder, RunFolder
from tests.commands import Said, bnbench
from tests.processes import completed
from tests.runs import SMALL_YAML, result_of, write_experiment

pytestmark = pytest.mark.usefixtures("own_folder")


def python(code: str) -> str:
    """Run code in a fresh interpreter; what it prints."""
    return completed(sys.executable, "-c", code).stdout.strip()


TWO_BY_TWO = "setups: {none: {norm: {kind: none}}, bn: {}}\naxes: {optim.lr: [0.01, 0.1]}\n"


def test_version() -> None:
    assert bnbench("--version") == Said(0, f"bnbench {__version__}\n", "")


LIGHT = [
    ["--help"],
    ["--version"],
    ["train", "--help"],
    ["diagnose", "--help"],
    ["status"],
    ["configs", "list"],
    ["explain", "findings"],
    ["tensorboard"],
]


def test_light_verbs_import_nothing_heavy() -> None:
    """One process for all of them: what one has imported, the next ones have, too."""
    code = (
        f"import sys\nfrom bnbench.cli import app\nfor arguments in {LIGHT!r}:\n"
        "    try: app(arguments)\n    except SystemExit: pass\n"
        "    heavy = {'torch', 'tensorboard', 'numpy', 'scipy'} & sys.modules.keys()\n"
        "    if heavy: raise AssertionError(f'{arguments} import {heavy}')"
    )
    python(code)


def test_ctrl_c_while_importing_shows_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'bnbench.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from bnbench.__main__ import main\n"
        "main()"
    )
    done = completed(sys.executable, "-c", code, code=130)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_misspelled_key_is_named_before_torch_is_imported() -> None:
    write_experiment(Path("study.yaml"), "norm: {kind: group, grops: 2}\n")
    said = bnbench("train", "study.yaml")
    assert said == Said(
        2,
        "",
        'study.yaml:12:21: norm.grops is not a key of kind "group"\n  did you mean norm.groups?\n',
    )


def test_all_faults_are_listed_at_once() -> None:
    Path("study.yaml").write_text("optim: {lr: fast}\ndata: {batch_size: 0}\n")
    said = bnbench("sweep", "study.yaml", "--set", "model.depth=3")
    assert said.code == 2
    assert said.out == ""
    places = [line.split(": ")[0] for line in said.err.splitlines() if not line.startswith(" ")]
    assert places == ["study.yaml:1:13", "study.yaml:2:20", "--set model.depth"]


def test_a_file_that_is_not_there() -> None:
    said = bnbench("train", "defualt")
    assert said.code == 2
    assert said.err.startswith(
        "defualt is not there, and no shipped experiment has that name\n"
        "  shipped experiments: default"
    )


def test_train_refuses_an_experiment_of_several_runs() -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO + "seeds: 3\n")
    said = bnbench("train", "study.yaml")
    assert said.code == 2
    assert said.err == (
        "study.yaml describes 12 runs (2 setups × 2 values of optim.lr × 3 seeds)\n"
        "  bnbench sweep study.yaml trains them; to train one, add for example\n"
        "  --setup none --set optim.lr=0.01 --seed 0\n"
    )


def test_an_unknown_option_is_a_usage_error() -> None:
    said = bnbench("train", "--lerning-rate", "3")
    assert said.code == 2
    assert "No such option" in said.err


def test_an_unknown_device_is_said() -> None:
    write_experiment(Path("study.yaml"))
    said = bnbench("train", "study.yaml", "--device", "cuda:7")
    assert said == Said(
        2,
        "",
        "there is no device cuda:7 on this machine\n"
        "  use --device cpu, or auto for what there is\n",
    )


def test_status_tells_the_states() -> None:
    assert bnbench("status").out == (
        "no experiments in runs, a folder that is not there yet: bnbench train default trains a "
        "first run\n"
    )
    Path("file").touch()
    assert bnbench("status", "--runs-dir", "file").code == 4
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    bnbench("sweep", "study.yaml", "--quiet")
    first, second, third, _ = ExperimentFolder(Path("runs/study")).runs()
    (first.path / "result.json").unlink()
    (second.path / "result.json").unlink()
    second.fail({"message": "out of luck\nand more"})
    said = bnbench("status", "study")
    assert said.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines()}
    assert rows[first.name] == ["interrupted"]
    assert rows[second.name] == ["failed", "out", "of", "luck"]
    assert rows[third.name][:3] == ["completed", "test", "accuracy"]
    overview = bnbench("status").out
    assert overview.splitlines()[1].split() == ["experiment", "completed", "interrupted", "failed"]
    assert overview.splitlines()[3].split() == ["study", "2", "1", "1"]
    record = json.loads(bnbench("status", "study", "--json").out)
    assert {run["run"]: run["state"] for run in record["runs"]}[second.name] == "failed"
    said = bnbench("status", "other")
    assert said == Said(2, "", "no experiment 'other' in runs\n  there is: study\n")


def test_status_lists_a_damaged_folder_among_the_others() -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    bnbench("sweep", "study.yaml", "--quiet")
    first, second, *_ = ExperimentFolder(Path("runs/study")).runs()
    (first.path / "result.json").write_text('{"state"')
    (second.path / "result.json").write_text('{"state": "completed"}')
    said = bnbench("status", "study")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == [first.name, "damaged"]
    assert lines[1].strip().startswith(f"{first.path / 'result.json'}: not JSON")
    assert lines[3].strip() == f"{second.path / 'result.json'}: not a result"
    states = [run["state"] for run in json.loads(bnbench("status", "study", "--json").out)["runs"]]
    assert states == ["damaged", "damaged", "completed", "completed"]
    assert bnbench("status").code == 0
    # The sweep goes on with the others and says what to do about it.
    said = bnbench("sweep", "study.yaml", "--quiet")
    assert said.code == 1
    assert "2 of 4 runs failed" in said.err
    assert "--retry-failed" in said.err


def test_sweep_for_programs_and_spreadsheets() -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    rows = json.loads(bnbench("sweep", "study.yaml", "--quiet", "--json").out)
    assert [(row["setup"], row["optim.lr"], row["state"]) for row in rows] == [
        ("none", 0.01, "completed"),
        ("none", 0.1, "completed"),
        ("bn", 0.01, "completed"),
        ("bn", 0.1, "completed"),
    ]
    result = result_of(ExperimentFolder(Path("runs/study")).run(rows[0]["run"]))
    assert rows[0]["test/batch/loss"] == result["test"]["batch"]["loss"]
    table = list(csv.DictReader(bnbench("sweep", "study.yaml", "--csv").out.splitlines()))
    assert [row["run"] for row in table] == [row["run"] for row in rows]
    assert float(table[3]["test/running/accuracy"]) == rows[3]["test/running/accuracy"]
    forecast = json.loads(bnbench("sweep", "study.yaml", "--dry-run", "--json").out)
    assert [run["state"] for run in forecast["runs"]] == ["completed"] * 4
    assert forecast["seconds"] == 0


def test_the_size_of_a_grid_is_capped_before_it_is_expanded() -> None:
    write_experiment(
        Path("study.yaml"), "axes: {optim.lr: {log: [1.0e-6, 1.0, 400]}}\nseeds: 100\n"
    )
    said = bnbench("sweep", "study.yaml", "--dry-run")
    assert said.code == 2
    assert "40,000 runs" in said.err
    assert "--max-runs" in said.err
    said = bnbench("sweep", "study.yaml", "--dry-run", "--max-runs", "10")
    assert "more than 10" in said.err


@pytest.mark.parametrize("workers", ["0", "some", "2.5", "1000", "9" * 5000])
def test_a_wrong_number_of_workers_is_said(workers: str) -> None:
    write_experiment(Path("study.yaml"))
    said = bnbench("sweep", "study.yaml", "--workers", workers)
    assert said == Said(
        2, "", f"--workers {workers}: not a number of workers\n  1 to 999, or auto\n"
    )


def test_configs_list_show_copy_check() -> None:
    listed = bnbench("configs", "list").out
    assert "quickstart" in listed
    assert max(map(len, listed.splitlines())) <= 80
    text = bnbench("configs", "show", "default").out
    Path("bnbench.schema.json").write_text('{"of": "an earlier version"}')
    said = bnbench("configs", "copy", "default")
    copied = "copied to my-default.yaml, with bnbench.schema.json for editors\n"
    assert said == Said(0, f"{copied}bnbench sweep my-default.yaml\n", "")
    modeline, name, *lines = Path("my-default.yaml").read_text().splitlines()
    assert lines == text.splitlines()[1:]
    assert name == "experiment: my-default"
    schema = json.loads(Path(modeline.partition("$schema=")[2]).read_text())
    said = bnbench("configs", "copy", "default")
    assert said.code == 2
    assert said.err == "my-default.yaml already exists\n  name another file\n"
    said = bnbench("configs", "check", "my-default.yaml")
    assert said == Said(0, "my-default.yaml: 1 run, no faults\n", "")
    resolved = bnbench("configs", "show", "default", "--resolved").out
    assert "momentum: 0.9" in resolved
    assert schema == json.loads(bnbench("configs", "schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_copy_of_a_copy_has_one_name() -> None:
    Path("mine").mkdir()
    assert bnbench("configs", "copy", "claims/placement", "mine").code == 0
    assert bnbench("configs", "copy", "mine/my-placement.yaml", "mine/Other Study.yaml").code == 0
    lines = Path("mine/Other Study.yaml").read_text().splitlines()
    assert [line for line in lines if line.startswith("experiment:")] == ["experiment: other-study"]
    assert sum("$schema=" in line for line in lines) == 1


def test_check_calls_no_file_faultless_that_cannot_decide_what_it_asks() -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    assert bnbench("configs", "check", "study.yaml", "--set", "seeds=6").out.endswith("no faults\n")
    assert bnbench("configs", "check", "study.yaml") == Said(
        0,
        "study.yaml: 4 runs (2 setups × 2 values of optim.lr × 1 seed), which train, but do not "
        "decide all that the file asks:\n"
        "- 1 seed: 6 are needed for a verdict\n  write seeds: 6\n",
        "",
    )


def test_every_shipped_experiment_is_sound() -> None:
    from bnbench.config import files

    shipped = files.shipped()
    assert {"batch-size", "default", "fashion-mnist", "quickstart"} <= {each[0] for each in shipped}
    for name, _, description in shipped:
        assert description
        said = bnbench("configs", "check", name)
        assert said.code == 0, said.err


def test_the_runs_directory_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BNBENCH_RUNS_DIR", "elsewhere")
    Path("study.yaml").write_text(SMALL_YAML)
    assert bnbench("train", "study.yaml", "--quiet").code == 0
    (run,) = ExperimentFolder(Path("elsewhere/study")).runs()
    assert isinstance(run, RunFolder)


def test_what_only_building_shows_is_refused_before_the_first_run() -> None:
    Path("layer.py").write_text(
        "from torch import nn\n\n\nclass Broken(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n"
        "        self.fine = channels < 8\n\n"
        "    def forward(self, x):\n        assert self.fine, 'eight channels or more'\n"
        "        return x\n"
    )
    write_experiment(
        Path("study.yaml"),
        "setups: {bn: {}, mine: {norm: {kind: custom, target: layer.py:Broken}}}\nseeds: 2\n",
    )
    said = bnbench("sweep", "study.yaml", "--quiet")
    assert said == Said(
        2,
        "",
        f"runs the code in {Path.cwd() / 'layer.py'} (norm.target)\n"
        "study.yaml:12:46: the first step fails: layer.py:10: AssertionError: eight channels "
        "or more (setup mine)\n",
    )
    assert not ExperimentFolder(Path("runs/study")).runs()
    write_experiment(
        Path("groups.yaml"),
        "norm: {kind: group, groups: 5}\n",
    )
    text = Path("groups.yaml").read_text()
    network = "{kind: torchvision, name: resnet18}"
    Path("groups.yaml").write_text(text.replace("{widths: [4, 8], blocks: 1}", network))
    said = bnbench("sweep", "groups.yaml", "--quiet")
    layers = "bn1, layer1.0.bn1, layer1.0.bn2 and 2 more"
    message = f"norm.groups: {layers}: 64 channels do not split into 5 groups"
    assert said.code == 2
    assert said.err.startswith(f"groups.yaml:12:21: {message}; layer2.0.bn1")
    assert said.err.endswith(
        " (model.name)\n  these divide the channels of every layer: 1, 2, 4, 8, 16, 32, 64\n"
    )


def test_a_damaged_run_does_not_stop_the_others() -> None:
    write_experiment(Path("study.yaml"), TWO_BY_TWO)
    assert bnbench("sweep", "study.yaml", "--quiet").code == 0
    first, second, *_ = ExperimentFolder(Path("runs/study")).runs()
    (first.path / "result.json").write_text("{")
    (second.path / "result.json").unlink()
    said = bnbench("sweep", "study.yaml", "--quiet")
    assert said.code == 1
    assert said.err.startswith("1 of 4 runs failed:\n")
    assert "result.json: not JSON" in said.err
    assert store.read(second).state == "completed"
    assert said.err.endswith("--retry-failed, which renames damaged files to FILE.damaged-1\n")
    assert bnbench("sweep", "study.yaml", "--quiet", "--retry-failed").code == 0
    assert store.read(first).state == "completed"
    assert (first.path / "result.json.damaged-1").read_text() == "{"
    metrics = (second.path / "metrics.jsonl").read_bytes()
    (second.path / "metrics.jsonl").write_bytes(metrics.replace(b"0.", b"1.", 1))
    said = bnbench("train", str(second.path / "config.yaml"), "--quiet")
    assert said.err == (
        f"{second.path / 'metrics.jsonl'}: changed since the run ended\n"
        "  train the run again with --restart\n"
    )
    assert said.code == 4
    assert bnbench("sweep", "study.yaml", "--quiet", "--retry-failed").code == 0
    assert (second.path / "metrics.jsonl").read_bytes() != metrics, "clocks differ"
