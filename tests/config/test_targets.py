"""What the text of a user's classes tells of them, before any of it is run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from bnbench.config import loading, plans

CUSTOM = "norm: {kind: custom, target: 'mine/layer.py:Norm'}"

INIT = "raise SystemExit\nclass Norm(M):\n    def __init__({}): ..."


@pytest.mark.parametrize(
    ("init", "options", "said", "hint"),
    [
        ("self", "{}", "too many positional arguments", "it needs def __init__(self, channels, …)"),
        ("self, channels, groups", "{}", "missing a required argument: 'groups'",
         "write norm.options: {groups: …}"),
        ("self, channels, *, eps", "{}", "missing a required argument: 'eps'",
         "write norm.options: {eps: …}"),
        ("self, channels, epsilon=1e-5", "{epsilom: 1}",
         "got an unexpected keyword argument 'epsilom'", "did you mean epsilon?"),
        ("self, channels, eps: float=1e-5", "{channels: 1}",
         "multiple values for argument 'channels'", None),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_made_is_told_with_its_signature(
    faults: Any, tmp_path: Any, init: str, options: str, said: str, hint: str | None
) -> None:
    path = tmp_path / "layer.py"
    path.write_text(INIT.format(init))
    told = faults(f"norm: {{kind: custom, target: 'layer.py:Norm', options: {options}}}")
    start, *rest = told.split("\n  ")
    written = ast.unparse(ast.parse(f"def f({init}): ...")).partition("self")[2].partition("):")[0]
    assert f"{path}: Norm({written.removeprefix(', ')}) is made as Norm(channels" in start
    assert start.endswith(said)
    assert rest == ([hint] if hint else [])


@pytest.mark.parametrize(
    "source",
    [
        INIT.format("self, channels, **more"),
        INIT.format("self, *all, eps=0"),
        INIT.format("this, channels, eps"),
        "class Norm(M): ...",
        "def Norm(channels): ...\nNorm = made(Norm)",
        "@made\n" + INIT.format("self").partition("\n")[2],
        INIT.format("self") + "\nNorm = wrapped(Norm)",
        INIT.format("self") + "\n    __init__ = other",
    ],
)
def test_a_class_whose_text_does_not_tell_or_fits_is_not_refused(
    plan: Any, tmp_path: Any, source: str
) -> None:
    (tmp_path / "layer.py").write_text(source)
    assert plan("norm: {kind: custom, target: 'layer.py:Norm', options: {eps: 1}}").only()


def test_what_is_no_class_of_layers_is_told(faults: Any, tmp_path: Any) -> None:
    path, place = tmp_path / "mine/layer.py", "x.yaml:1:22: norm.options:"
    path.parent.mkdir()
    path.write_text("def Norm(channels): ...")
    no_class = "Norm is a function; a class that derives from torch.nn.Module is needed"
    assert faults(CUSTOM) == f"{place} {path}: {no_class}"
    path.write_text("class Norm(nn.Module):\n    def forward(self, x): ...")
    assert faults(CUSTOM) == (
        f"{place} {path}: Norm() is made as Norm(channels): too many positional arguments\n"
        "  it needs def __init__(self, channels, …)"
    )


def test_a_network_of_ones_own_is_asked_for_its_three_arguments(
    faults: Any, plan: Any, tmp_path: Any
) -> None:
    text = "model: {kind: custom, target: 'net.py:Net', options: {depth: 3}}"
    path = tmp_path / "net.py"
    path.write_text("class Net(M):\n    def __init__(self, in_channels, classes, depth=2): ...")
    assert faults(text) == (
        f"x.yaml:1:45: model.options: {path}: Net(in_channels, classes, depth=2) is made as "
        "Net(in_channels=…, classes=…, make_norm=…, depth=…): got an unexpected keyword argument "
        "'make_norm'\n  with model.norm: swap it is built as it is, and its BatchNorms are "
        "exchanged"
    )
    path.write_text("class Net(M):\n    def __init__(self, make_norm, **more): ...")
    assert plan(text).only()


def test_a_network_that_is_built_as_it_is_is_asked_for_two(
    faults: Any, plan: Any, tmp_path: Any
) -> None:
    text = "model: {kind: custom, target: 'net.py:build', norm: swap, options: {depth: 3}}"
    path = tmp_path / "net.py"
    path.write_text("def bild(in_channels, classes, depth): ...\nclass Net(M): ...")
    assert faults(text) == (
        f"x.yaml:1:23: model.target: {path} defines no function build\n  did you mean bild?"
    )
    path.write_text("def build(in_channels, classes, size): ...")
    assert "build(in_channels, classes, size) is made as build(in_channels=" in faults(text)
    path.write_text("def build(in_channels, classes, depth): ...")
    assert plan(text).only()
    hint = "\n  with model.norm: swap it is built as it is, and its BatchNorms are exchanged"
    assert faults(text.replace(" norm: swap,", "")).endswith(
        f"build is a function; a class that derives from torch.nn.Module is needed{hint}"
    )


def test_weights_are_those_of_a_network_as_it_is_built(faults: Any, tmp_path: Any) -> None:
    (tmp_path / "w.pt").write_bytes(b"")
    assert faults("model: {kind: torchvision, name: resnet18, pretrained: w.pt}") == (
        "x.yaml:1:44: model.pretrained holds the weights of a network as it is built, before its "
        "norms are exchanged\n  write norm: swap, too"
    )
    assert faults("model: {kind: timm, name: resnet18, options: {pretrained: true}}") == (
        "x.yaml:1:37: model.options may not have pretrained\n  name a file: pretrained: FILE"
    )
    assert "model.name must be a name without / and :" in faults(
        "model: {kind: timm, name: 'hf-hub:timm/resnet18'}"
    )


def test_custom_classes_are_looked_for_without_running_them(
    plan: Any, faults: Any, tmp_path: Any
) -> None:
    path = tmp_path / "mine" / "layer.py"
    place = "x.yaml:1:22: norm.target:"
    where = (
        "\n  a path in a file starts at that file's folder, one on the command line at the "
        "working directory"
    )
    assert faults(CUSTOM) == f"{place} there is no file {path}{where}"
    path.parent.mkdir()
    path.write_text("raise SystemExit\nclass Nrm: ...\nclass Other: ...")
    assert faults(CUSTOM) == f"{place} {path} defines no class Norm\n  did you mean Nrm?"
    path.write_text("class A: ...\nclass B: ...\n")
    assert faults(CUSTOM) == f"{place} {path} defines no class Norm\n  it defines A and B"
    path.write_text("")
    assert faults(CUSTOM) == f"{place} {path} defines no class Norm"
    path.write_text("x = 1\nclass Norm(:\n")
    assert faults(CUSTOM) == f"{place} {path} is not Python: line 2: invalid syntax"
    path.write_text("class Norm:\n    def __init__(self, channels, eps=1, eps=2): ...\n")
    twice = "duplicate argument 'eps' in function definition"  # which the parser lets pass
    assert faults(CUSTOM) == f"{place} {path} is not Python: line 2: {twice}"
    for text in (
        "raise SystemExit\nclass Norm: ...",
        "from torch.nn import BatchNorm2d as Norm",
        "Norm = make()",
        "try:\n    import x\nexcept ImportError:\n    class Norm: ...",
        "from x import *",
        "'\\d'\nclass Norm: ...",  # a warning of the compiler
    ):
        path.write_text(text)
        assert plan(CUSTOM).only().norm.target == f"{path}:Norm"
    path.unlink()
    path.mkdir()
    assert faults(CUSTOM) == f"{place} {path} cannot be read: Is a directory"


def test_a_target_starts_where_it_was_written(
    plan: Any, faults: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "net.py").write_text("class Net: ...")
    text = "model: {kind: custom, target: 'net.py:Net'}"
    (tmp_path / "study" / "y.yaml").write_text(text)
    target = f"{tmp_path / 'study' / 'net.py'}:Net"
    from_file = loading.load_experiment(Path("study/y.yaml"))
    assert plans.expand(from_file).only().model.model_dump()["target"] == target
    from_argument = plan("", "model={kind: custom, target: 'study/net.py:Net'}").only()
    assert from_argument.model.target == target
    assert plan("", "model.kind=custom", "model.target=./study/net.py:Net").only() == from_argument
    assert faults("", "model.kind=custom", "model.target=net.py:Net").startswith(
        f"--set model.target: model.target: there is no file {tmp_path / 'net.py'}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plan("", "model={kind: custom, target: '~/study/net.py:Net'}").only() == from_argument
