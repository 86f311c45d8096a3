from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import loading, yaml
from bnbench.config.faults import Faults
from bnbench.errors import ConfigError, StorageError


def read(text: str) -> Any:
    faults = Faults()
    source = yaml.parse(text, yaml.Source("x.yaml"), faults)
    assert not faults.found
    return source.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1", 1),
        ("-2", -2),
        ("0", 0),
        ("0.1", 0.1),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        # Text, so that the type of the key refuses it: never silently 10, 1000 or 90.
        ("012", "012"),
        ("0o12", "0o12"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("True", "True"),
        ("'1'", "1"),
        ('"null"', "null"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    got = read(f"a: {text}")["a"]
    assert got == value
    assert type(got) is type(value)


def test_empty_documents_and_aliases() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None
    assert read("---\na: 1\n...\n") == {"a": 1}
    assert read("a: &x [1, 2]\nb: *x\nc: &y 3\nd: [*y, *x]") == {
        "a": (1, 2),
        "b": (1, 2),
        "c": 3,
        "d": (3, (1, 2)),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2\n", "x.yaml:2:1: seed is given twice; first on line 1"),
        (
            "data:\n  batch_size: 1\n  batch_size: 2\n",
            "x.yaml:3:3: data.batch_size is given twice; first on line 2",
        ),
        ("data: {root: !!str a}", "x.yaml:1:14: the tag !!str is not allowed\n"
         "  tags have no meaning here: write the value alone"),
        ("data: !python/object {}", "x.yaml:1:7: the tag !python/object is not allowed\n"
         "  tags have no meaning here: write the value alone"),
        ("data: {<<: {}}", "x.yaml:1:8: the merge key << is not allowed\n"
         "  write the keys out, or use setups"),
        ("1: 2", 'x.yaml:1:1: a key must be text, not 1\n  write "1", in quotes'),
        ("true: 2", 'x.yaml:1:1: a key must be text, not true\n  write "true", in quotes'),
        ("? [a]\n: 1", "x.yaml:1:3: a key must be text, not a list or a mapping\n"
         "  text that starts with one of { [ needs quotes"),
        ("optim: {lr: .nan}", "x.yaml:1:13: optim.lr: .nan is not a finite number"),
        ("optim: {lr: -.INF}", "x.yaml:1:13: optim.lr: -.INF is not a finite number"),
        ("optim: {lr: 1e999}", "x.yaml:1:13: optim.lr: 1e999 is not a finite number"),
        ("seed: 99999999999999999999", "x.yaml:1:7: seed: 99999999999999999999 is too large a "
         "number"),
        ('question: "a\\x07"', "x.yaml:1:11: question: text holds a character that cannot be "
         "printed"),
        ("a: *b", "x.yaml:1:4: this alias has no anchor before it"),
        ("a: &b [*b]", "x.yaml:1:4: this contains itself: an alias is "
         "inside its own anchor"),
        ("--- {}\n--- {}", "x.yaml:2:1: a second document starts here: remove the ---"),
        ("- 1", "x.yaml:1:1: an experiment is a mapping of keys, not a list"),
        ("word", 'x.yaml:1:1: an experiment is a mapping of keys, not "word"'),
        ("data:\n\tseed: 1", "x.yaml:2:1: this is not YAML: a tab cannot indent YAML: use spaces"),
        ("data: [1\nseed: 2", "x.yaml:2:5: this is not YAML: a [ is not closed, or a comma is "
         "missing"),
        ("question: a: b", 'x.yaml:1:12: this is not YAML: a ":" is where no key can end: text '
         'with ": " in it needs quotes, and keys of one block start in one column'),
        (b"question: \xff", "x.yaml:1:11: byte 0xff is not UTF-8\n  save the file as UTF-8"),
        ("seed: 1\nquestion: \0", "x.yaml:2:11: a character here cannot be printed"),
        ("[" * 50_000, "nested more than 40 levels deep"),
        ("#" * 1_000_001, "x.yaml: cannot be read: it is larger than 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_refusals(faults: Any, text: str | bytes, expected: str) -> None:
    # Further faults may follow from the same text; the one about its YAML is complete.
    message = faults(text)
    assert message == expected or f"{expected}\n" in f"{message}\n"


def test_a_refused_value_is_reported_once(faults: Any) -> None:
    assert faults("optim: {lr: .nan}") == "x.yaml:1:13: optim.lr: .nan is not a finite number"


def test_aliases_do_not_expand_without_bound(faults: Any) -> None:
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    assert faults(bomb).endswith(": more than 20,000 values, aliases expanded")


def test_deep_aliases_count_their_depth(faults: Any) -> None:
    deep = "".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else ''}]\n" for i in range(60))
    assert faults(deep).endswith(": nested more than 40 levels deep")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, expected in (
        (tmp_path / "absent.yaml", "there is no such file"),
        (tmp_path, "this is a folder, not a file"),
    ):
        with pytest.raises(ConfigError) as caught:
            loading.load_experiment(path)
        assert str(caught.value) == f"{path}: {expected}"


def test_byte_order_mark_and_line_ends(plan: Any) -> None:
    assert plan(b"\xef\xbb\xbfseed: 3\r\noptim: {lr: 1}\r\n").only().seed == 3


def test_a_disk_that_fails_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("bnbench.config.yaml.regular.read_piped", fails)
    with pytest.raises(StorageError) as raised:
        loading.load_experiment(Path("x.yaml"))
    assert str(raised.value).startswith("x.yaml: Input/output error\n")
