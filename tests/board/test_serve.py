"""The command as its users type it: a port, a link, and an end."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from typer.testing import CliRunner

from bnbench import cli
from bnbench.board import serve
from bnbench.board.serve import deep_link, setups_of
from bnbench.errors import RunError, StorageError, UsageError
from bnbench.store import ExperimentFolder
from tests.processes import LIMIT
from tests.studies import served


def listening(port: int) -> socket.socket:
    """Somebody else on a port; 0: any."""
    found = socket.socket()
    found.bind(("127.0.0.1", port))
    found.listen()
    return found


def test_it_serves_until_ctrl_c_on_the_next_free_port(study: ExperimentFolder) -> None:
    with listening(0) as other:
        busy = other.getsockname()[1]
        with served(study, port=busy) as board:
            address = urlsplit(board.link)
            assert address.hostname == "127.0.0.1"
            port = address.port
            assert port is not None
            opener = build_opener(ProxyHandler({}))
            with opener.open(
                f"http://127.0.0.1:{port}/data/plugins_listing", timeout=LIMIT
            ) as answer:
                assert "hparams" in json.load(answer)
    assert port > busy
    assert board.process.returncode == 130
    assert board.err == [f"port {busy} is busy: using {port}", "stopped"]
    assert board.out[0] == f"TensorBoard on {study.path}; Ctrl-C ends it"
    assert f"ssh -L {port}:127.0.0.1:{port} " in board.out[-1]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "nothing is left behind"


def test_the_next_free_port() -> None:
    with listening(0) as first:
        port = first.getsockname()[1]
        assert serve.free_port(port) > port
    with pytest.MonkeyPatch.context() as patched:

        def taken(*_: object) -> None:
            raise OSError

        patched.setattr(socket.socket, "bind", taken)
        with pytest.raises(UsageError, match="no free port from 65530 on"):
            serve.free_port(65530)


def test_the_link_opens_a_curated_view(study: ExperimentFolder) -> None:
    setups = setups_of([study])
    address = urlsplit(deep_link(setups, port=6006, means=True))
    assert (address.netloc, address.path) == ("127.0.0.1:6006", "/")
    # The older tabs smooth by 0.6 unless they are told.
    assert address.fragment == "custom_scalars&_smoothingWeight=0"
    early = urlsplit(deep_link(setups, port=6006, means=False))
    assert early.fragment == "timeseries&_smoothingWeight=0"
    assert early.query == address.query
    query = {key: value for key, (value,) in parse_qs(address.query).items()}
    pinned = [card["tag"] for card in json.loads(query["pinnedCards"])]
    assert pinned == ["accuracy/val_running", "loss/train", "gap/val_accuracy"]
    assert query["smoothing"] == "0"
    kind, _, regex = query["runColorGroup"].partition(":")
    assert kind == "regex"
    for run in study.runs():
        for name in (run.name, f"study/{run.name}"):
            found = re.search(regex, name)
            assert found is not None
            assert found[1] == (run.manifest() or {})["setup"]
            assert re.search(query["runFilter"], name)
    for band in ("seed-bands/bn_bs004", "study/seed-bands/by-batch-size/bn"):
        assert not re.search(query["runFilter"], band)
        found = re.search(regex, band)
        assert found is not None
        assert found[1] == "bn", "a mean has the colour of its setup"


def test_a_setup_that_begins_like_another_has_its_own_colour(own_study: ExperimentFolder) -> None:
    first = own_study.runs()[0]
    text = (first.path / "manifest.json").read_text()
    (first.path / "manifest.json").write_text(text.replace('"setup": "bn"', '"setup": "bn_x"'))
    first.path.rename(first.path.with_name("bn_x_bs004_s00_00000000"))
    query = parse_qs(urlsplit(deep_link(setups_of([own_study]), port=1, means=True)).query)
    regex = query["runColorGroup"][0].partition(":")[2]
    found = [re.search(regex, name) for name in ("bn_x_bs004_s00_0", "bn_bs004_s01_0")]
    assert [match and match[1] for match in found] == ["bn_x", "bn"]


def test_a_setup_without_files_leaves_its_colour_to_nobody(own_study: ExperimentFolder) -> None:
    before = setups_of([own_study]).places
    assert list(before) == ["bn", "gn", "wild"]
    for run in own_study.runs():
        if run.name.startswith("bn_"):
            run.clear_views()
    after = setups_of([own_study])
    assert after.places == {"gn": before["gn"], "wild": before["wild"]}, "TensorBoard counts these"
    assert "bn" not in after.regex


def test_each_cell_begins_with_its_smallest_seed(own_study: ExperimentFolder) -> None:
    for run in own_study.runs():
        manifest = run.manifest() or {}
        seed = 99 + manifest["seed"]  # by their names 100 comes before 99
        (run.path / "manifest.json").write_text(json.dumps(manifest | {"seed": seed}))
        run.path.rename(run.path.with_name(re.sub(r"_s\d+_", f"_s{seed}_", run.name)))
    other = ExperimentFolder(own_study.path.with_name("other"))
    shutil.copytree(own_study.path, other.path)
    first = {run.name.rpartition("_")[0]: run for run in other.runs()}
    shutil.rmtree(first["bn_bs004_s99"].path)
    first["gn_bs016_s99"].clear_views()  # TensorBoard does not list it

    def selected(folder: ExperimentFolder, regex: str, prefix: str = "") -> list[str]:
        names = [run.name for run in folder.runs()]
        found = [name for name in names if re.search(regex, prefix + name)]
        return [name.rpartition("_")[0] for name in found]

    cells = [f"{setup}_bs{size}" for setup in ("bn", "gn", "wild") for size in ("004", "016")]
    assert selected(own_study, setups_of([own_study]).first) == [f"{cell}_s99" for cell in cells]
    both = setups_of([own_study, other]).first
    assert selected(own_study, both, "study/") == [f"{cell}_s99" for cell in cells]
    later = {"bn_bs004", "gn_bs016"}
    assert selected(other, both, "other/") == [
        f"{cell}_s{100 if cell in later else 99}" for cell in cells
    ]


def test_a_link_without_runs_has_no_colours(tmp_path: Path) -> None:
    assert "runColorGroup" not in deep_link(
        setups_of([ExperimentFolder(tmp_path)]), port=6006, means=False
    )


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said, where TensorBoard starts and is stopped at once."""
    lines: list[str] = []
    monkeypatch.setattr(serve, "start", lambda folder, *_: lines.append(f"starts on {folder}"))
    monkeypatch.setattr(serve, "wait_for_interrupt", lambda: lines.append("waits"))
    monkeypatch.setattr("webbrowser.open", lambda link: lines.append(f"opens {link}"))
    return lines


def test_read_only_logs_are_shown_as_they_are(
    study: ExperimentFolder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: ExperimentFolder) -> int:
        raise StorageError(f"{study.path}: not writable (Read-only file system)", do="elsewhere")

    monkeypatch.setattr(serve, "refresh", refused)
    serve.serve(
        [study], study.path.parent, port=6006, browser=True, show=said.append, warn=said.append
    )
    lines = [line for line in said if not line.startswith("port 6006 is busy")]
    assert lines[:2] == [
        f"{study.path}: not writable (Read-only file system): TensorBoard shows the files as they "
        "are",
        f"starts on {study.path}",
    ]
    (opened,) = [line for line in said if line.startswith("opens http://127.0.0.1:")]
    assert opened.removeprefix("opens ") in "\n".join(said[2:-3])
    assert said[-1] == "waits"


def test_runs_that_have_ended_since_are_in_the_means(
    own_study: ExperimentFolder, said: list[str]
) -> None:
    """TensorBoard was started while a sweep trained, which then stopped without updating it."""
    (run,) = [each for each in own_study.runs() if each.name.startswith("bn_bs004_s01")]
    result = run.path / "result.json"
    content = result.read_bytes()
    result.unlink()
    shutil.rmtree(own_study.path / "seed-bands")

    def bands() -> dict[str, bytes]:
        serve.serve([own_study], run.path, port=6006, browser=False, show=print, warn=print)
        return own_study.kept("seed-bands/**/*.bands")

    (early,) = (name for name, content in bands().items() if b"1 interrupted" in content)
    (own_study.path / early).write_bytes(b"")
    assert bands()[early] == b"", "runs are not read again"
    result.write_bytes(content)
    os.utime(result, (2**31, 2**31))
    late = bands()
    assert b"Mean of the completed seeds (0, 1)" in late[early]
    assert said.count("waits") == 3


def test_more_runs_than_the_older_tabs_begin_with_are_said(
    study: ExperimentFolder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warnings(limit: int) -> list[str]:
        monkeypatch.setattr(serve, "ALL", limit)
        said.clear()
        serve.serve(
            [study], study.path, port=6006, browser=False, show=said.append, warn=said.append
        )
        return [line for line in said if "Time Series" in line]

    assert warnings(18) == []  # 12 runs and 6 means
    (line,) = warnings(17)
    assert line.startswith(
        "18 runs and means: beyond 17, all tabs but Time Series and HParams begin"
    )


def test_several_experiments_are_shown_together(
    own_study: ExperimentFolder, said: list[str]
) -> None:
    runs_dir = own_study.path.parent
    (runs_dir / "other").mkdir()
    (runs_dir / "other" / "experiment.yaml").write_text("{}")
    result = CliRunner().invoke(cli.app, ["tensorboard", "--runs-dir", str(runs_dir)])
    assert result.exit_code == 0, result.output
    assert f"starts on {runs_dir}" in said
    assert "other has no runs yet" in result.stderr
    assert "the HParams tab compares the runs of one experiment" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["nothing"], 2, "no experiment 'nothing' in"),
        ([], 2, "no experiments in"),
        (["--rebuild"], 2, "no experiments in"),
        (["--port", "0"], 2, "write --port 1"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(
    tmp_path: Path, arguments: list[str], code: int, line: str
) -> None:
    command = ["tensorboard", "--runs-dir", str(tmp_path), *arguments]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == code
    assert line in result.stderr
    assert "Traceback" not in result.stderr


def test_rebuild_says_what_it_did_and_what_it_could_not(own_study: ExperimentFolder) -> None:
    result = CliRunner().invoke(cli.app, ["tensorboard", "--rebuild", str(own_study.path)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{own_study.path}: TensorBoard's files of 12 runs are new\n"
    first = own_study.runs()[0]
    (first.path / "metrics.jsonl").write_text("{\n")
    result = CliRunner().invoke(cli.app, ["tensorboard", "--rebuild", str(own_study.path)])
    assert result.exit_code == 1
    assert result.stderr.count("metrics.jsonl: changed since the run ended") == 1
    assert "files of 11 runs are new" in result.stdout


def test_a_tensorboard_that_does_not_start_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard import program

    def broken(_: object) -> str:
        raise program.TensorBoardServerException("no such luck")

    monkeypatch.setattr(program.TensorBoard, "launch", broken)
    with pytest.raises(RunError, match="TensorBoard did not start: no such luck"):
        serve.start(tmp_path, 6006, setups_of([]), pytest.fail)


def test_where_another_server_was_faster_the_next_port_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard import program

    tried: list[int] = []

    def race(board: program.TensorBoard) -> str:
        tried.append(board.flags.port)
        if len(tried) == 1:
            raise program.TensorBoardPortInUseError("taken")
        raise program.TensorBoardServerException("the second try")

    monkeypatch.setattr(program.TensorBoard, "launch", race)
    with pytest.raises(RunError, match="the second try"):
        serve.start(tmp_path, 7006, setups_of([]), pytest.fail)
    assert tried[0] == 7006 < tried[1]


@pytest.mark.parametrize("kind", ["link", "pipe", "projector"])
def test_it_is_not_started_on_what_leads_out_of_the_folder(tmp_path: Path, kind: str) -> None:
    """TensorBoard itself follows links, waits for pipes, and shows files that a projector names."""
    folder, said = ExperimentFolder(tmp_path / "study"), list[str]()
    run = folder.path / "bn_s00_01234567"
    run.mkdir(parents=True)
    (run / "lock").touch()
    match kind:
        case "link":
            (run / "events.out.tfevents.1").symlink_to("/etc/passwd")
        case "pipe":
            os.mkfifo(run / "events.out.tfevents.1")
        case _:
            (run / "projector_config.pbtxt").write_text("")
    with pytest.raises(StorageError, match=r"TensorBoard would (follow|read) it|none of ours"):
        serve.serve([folder], tmp_path, port=1, browser=False, show=said.append, warn=said.append)
    assert not any("http" in line for line in said)


def test_links_within_the_folder_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartedError(Exception):
        """It would be."""

    def start(*_: object) -> None:
        raise StartedError

    monkeypatch.setattr(serve, "start", start)
    (tmp_path / "study" / "a").mkdir(parents=True)
    (tmp_path / "study" / "b").symlink_to("a")
    with pytest.raises(StartedError):
        serve.serve(
            [ExperimentFolder(tmp_path / "study")],
            tmp_path, port=6006, browser=False, show=print, warn=print,
        )  # fmt: skip
