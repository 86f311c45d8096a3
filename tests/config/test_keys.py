"""The text of every class of fault that a key can have."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bnbench.config import schema
from bnbench.wording import listing

MODELS = listing(schema.BLOCKS["model"].kinds)
NORMS = listing(schema.BLOCKS["norm"].kinds)
GROUPED, AFFINE = (listing(schema.BLOCKS["norm"].kinds_with(key)) for key in ("groups", "affine"))
CASES = [
    # misspelled and misplaced keys
    ("norm:\n  kind: group\n  grops: 4", 'x.yaml:3:3: norm.grops is not a key of kind "group"\n'
     "  did you mean norm.groups?"),
    ("norm: {kind: batch, groups: 4}", 'x.yaml:1:21: norm.groups is not a key of kind "batch"\n'
     f"  groups is a key of kind {GROUPED}"),
    ("train: {epoch: 3}", "x.yaml:1:9: train.epoch is not a key of train\n"
     "  did you mean train.epochs?"),
    ("data: {clases: 3}", 'x.yaml:1:8: data.clases is not a key of dataset "fashion-mnist-12k"\n'
     "  did you mean data.classes, a key of synthetic?"),
    ("model: {learning_rate: 3}", 'x.yaml:1:9: model.learning_rate is not a key of kind "plain"\n'
     "  did you mean optim.lr?"),
    ("batch_size: 3", "x.yaml:1:1: batch_size is not a key of an experiment\n"
     "  did you mean data.batch_size?"),
    ("learning_rate: 3", "x.yaml:1:1: learning_rate is not a key of an experiment\n"
     "  did you mean optim.lr?"),
    ("setps: {}", "x.yaml:1:1: setps is not a key of an experiment\n  did you mean setups?"),
    ("optim.lr: 0.1", "x.yaml:1:1: optim.lr is not a key of an experiment\n"
     "  only --set, --over and axes take dotted keys: write optim: {lr: …}"),
    ("train: {steps.x: 1}", "x.yaml:1:9: train.steps.x is not a key of train\n"
     "  only --set, --over and axes take dotted keys: write steps: {x: …}"),
    # kinds
    ("norm: {kind: off}", f'x.yaml:1:14: norm.kind must be {NORMS}, not "off"\n'
     "  the kind without normalization is none"),
    ("norm: {kind: null}", f"x.yaml:1:14: norm.kind must be {NORMS}, not null\n"
     "  the kind without normalization is none"),
    ("norm: {kind: false}", f"x.yaml:1:14: norm.kind must be {NORMS}, not false\n"
     "  the kind without normalization is none"),
    ("norm: {kind: goup}", f'x.yaml:1:14: norm.kind must be {NORMS}, not "goup"\n'
     "  did you mean group?"),
    ("norm: {kind: goup, grops: 4}", f'x.yaml:1:14: norm.kind must be {NORMS}, not "goup"\n'
     "  did you mean group?\nx.yaml:1:20: norm.grops is not a key of any kind\n"
     "  did you mean norm.groups?"),
    ("norm: {kind: BatchReNorm}", f'x.yaml:1:14: norm.kind must be {NORMS}, not "BatchReNorm"\n'
     "  did you mean batch-renorm?"),
    ("norm: {kind: ln}", f'x.yaml:1:14: norm.kind must be {NORMS}, not "ln"\n'
     "  did you mean layer?"),
    ("model: {kind: resnets}", f"x.yaml:1:15: model.kind must be {MODELS}, "
     'not "resnets"\n  did you mean resnet?'),
    ("model: {kind: vit}", f"x.yaml:1:15: model.kind must be {MODELS}, "
     'not "vit"'),
    ("norm: batch", 'x.yaml:1:7: norm must be a mapping, not "batch"\n  write norm: {kind: batch}'),
    ("optim: [1]", "x.yaml:1:8: optim must be a mapping, not a list"),
    # types and ranges
    ("optim: {lr: fast}",
     'x.yaml:1:13: optim.lr must be a number above 0 and at most 1e20, not "fast"'),
    ("optim: {lr: '0.1'}",
     'x.yaml:1:13: optim.lr must be a number above 0 and at most 1e20, not "0.1"\n  write 0.1, '
     "without quotes"),
    ("optim: {lr: true}",
     "x.yaml:1:13: optim.lr must be a number above 0 and at most 1e20, not true"),
    ("data: {batch_size: 0}",
     "x.yaml:1:20: data.batch_size must be a whole number from 1 to 1,000,000,000, not 0"),
    ("data: {batch_size: true}",
     "x.yaml:1:20: data.batch_size must be a whole number from 1 to 1,000,000,000, not true"),
    ("data: {batch_size: 2.0}",
     "x.yaml:1:20: data.batch_size must be a whole number from 1 to 1,000,000,000, not 2.0"),
    ("data: {batch_size: 1_000}",
     "x.yaml:1:20: data.batch_size must be a whole number from 1 to 1,000,000,000, not "
     '"1_000"\n  write 1000'),
    ("data: {batch_size: 012}",
     'x.yaml:1:20: data.batch_size must be a whole number from 1 to 1,000,000,000, not "012"\n  '
     "write 12"),
    ("data: {batch_size: 0x10}",
     "x.yaml:1:20: data.batch_size must be a whole number from 1 to 1,000,000,000, not "
     '"0x10"\n  write 16'),
    ("data: {drop_last: off}", 'x.yaml:1:19: data.drop_last must be true or false, not "off"\n'
     "  write false"),
    ("data: {train_size: no}",
     "x.yaml:1:20: data.train_size must be a whole number from 1 to 1,000,000,000 or null, not "
     '"no"'),
    ("norm: {placement: befor}", 'x.yaml:1:19: norm.placement must be before or after, not "befor"'
     "\n  did you mean before?"),
    ("data: {augment: false}", "x.yaml:1:17: data.augment must be none or flip-crop, not false\n"
     "  did you mean none?"),
    ("norm: {momentum: 2}", "x.yaml:1:18: norm.momentum must be a number from 0 to 1 or null, "
     "not 2"),
    ("optim: {momentum: 1}", "x.yaml:1:19: optim.momentum must be a number of at least 0 and below "
     "1, not 1"),
    ("optim: {decay: 0}", "x.yaml:1:16: optim.decay must be a number above 0 and below 1, not 0"),
    ("optim: {milestones: [0.5, 2]}", "x.yaml:1:27: optim.milestones[1] must be a number from 0 to "
     "1, not 2"),
    ("optim: {kind: adamw, betas: [0.9]}", "x.yaml:1:29: optim.betas must be a list of 2 numbers, "
     "not a list"),
    ("model: {widths: [8, 0]}",
     "x.yaml:1:21: model.widths[1] must be a whole number from 1 to 65,536, not 0"),
    ("model: {widths: []}",
     "x.yaml:1:17: model.widths must be a list of at most 10 whole numbers from 1 to 65,536, "
     "not an empty list"),
    ("model: {widths: 8}",
     "x.yaml:1:17: model.widths must be a list of at most 10 whole numbers from 1 to 65,536, "
     "not 8"),
    ("train: {log_every: 1001}",
     "x.yaml:1:20: train.log_every must be a whole number from 1 to 1,000, not 1001"),
    ("train: {checkpoint_every: 0s}", "x.yaml:1:27: train.checkpoint_every must be seconds such as "
     '30s, steps up to 1,000,000,000, or null, not "0s"'),
    ("train: {epochs: 1, steps: 5}", "x.yaml:1:20: train.epochs and train.steps are both set\n"
     "  give exactly one of epochs, steps, examples"),
    ("compute: {device: gpu}", "x.yaml:1:19: compute.device must be auto, cpu, cuda, cuda:N or "
     'mps, not "gpu"\n  did you mean cuda?'),
    ("compute: {threads: 0}",
     "x.yaml:1:20: compute.threads must be a whole number from 1 to 1,024 or auto, not 0"),
    ("data: {dataset: image-folder, image_size: 8}",
     'x.yaml:1:8: data.root is missing: dataset "image-folder" needs it\n'
     "  root: folder that holds train/<class>/ and test/<class>/"),
    # kinds that need a key, bound one, or have none of it
    ("norm: {kind: ghost}", 'x.yaml:1:8: norm.batch_size is missing: kind "ghost" needs it\n'
     "  batch_size: examples that share statistics"),
    ("norm: {kind: ghost, batch_size: null}",
     "x.yaml:1:33: norm.batch_size must be a whole number from 1 to 1,000,000,000, not null"),
    ("norm: {kind: batch-renorm, r_max: 0.5}",
     "x.yaml:1:35: norm.r_max must be a number from 1 to 1e9, not 0.5"),
    ("norm: {kind: batch-renorm, d_max: -1}",
     "x.yaml:1:35: norm.d_max must be a number from 0 to 1e20, not -1"),
    ("norm: {kind: frozen, freeze_after: 1.5}", "x.yaml:1:36: norm.freeze_after must be a number "
     "from 0 to 1, not 1.5"),
    ("norm: {kind: frn, placement: after}", 'x.yaml:1:30: norm.placement must be before, not '
     '"after"\n  frn is the activation as well: there is none for it to stand after'),
    ("norm: {kind: evonorm-s0, placement: after}", 'x.yaml:1:37: norm.placement must be before, '
     'not "after"\n  evonorm-s0 is the activation as well: there is none for it to stand after'),
    ("norm: {kind: frn, affine: false}", 'x.yaml:1:19: norm.affine is not a key of kind "frn"\n'
     f"  affine is a key of kind {AFFINE}"),
    ("model: {kind: torchvision}",
     'x.yaml:1:9: model.name is missing: kind "torchvision" needs it\n'
     "  name: the constructor's name, e.g. resnet18"),
    ("model: {kind: torchvision, name: 18}", "x.yaml:1:34: model.name must be text, not 18\n"
     '  write "18", in quotes'),
    ("model: {kind: resnet, widths: [8]}", 'x.yaml:1:23: model.widths is not a key of kind '
     '"resnet"\n  widths is a key of kind plain or mlp'),
    ("model: {kind: custom}", 'x.yaml:1:9: model.target is missing: kind "custom" needs it\n'
     "  target: path/to/file.py:ClassName"),
    ("norm: {kind: custom, target: a.py}", "x.yaml:1:30: norm.target must be "
     'path/to/file.py:ClassName, not "a.py"'),
    ("norm: {kind: custom, target: 'a:B'}", "x.yaml:1:30: norm.target must be "
     'path/to/file.py:ClassName, not "a:B"'),
    ("norm: {kind: custom, target: 'a.py:1b'}", "x.yaml:1:30: norm.target must be "
     'path/to/file.py:ClassName, not "a.py:1b"'),
    ("norm: {kind: custom, target: 'a.py:B', options: [1]}", "x.yaml:1:49: norm.options must be a "
     "mapping, not a list"),
    ("optim: {train_only: norms}", "x.yaml:1:21: optim.train_only must be norm or null, not "
     '"norms"\n  did you mean norm?'),
    ("depth: 20", "x.yaml:1:1: depth is not a key of an experiment\n  did you mean model.depth?"),
    # the experiment's own keys
    ("experiment: 2024", 'x.yaml:1:13: experiment must be text or null, not 2024\n'
     '  write "2024", in quotes'),
    ('experiment: "…"', 'x.yaml:1:13: experiment: "…" leaves no name for a folder\n'
     "  use a letter or a digit"),
    ("seed: -1",
     "x.yaml:1:7: seed must be a whole number from 0 to 9,223,372,036,854,775,807, not -1"),
    ("seeds: 0",
     "x.yaml:1:8: seeds must be a whole number from 1 to 1,000,000, or a list of seeds, not 0"),
    ("seeds: [1, 2, 1]", "x.yaml:1:15: seeds lists 1 twice"),
    ("seeds: []",
     "x.yaml:1:8: seeds must be a whole number from 1 to 1,000,000, or a list of seeds, not an "
     "empty list"),
    ("seed: 9\nseeds: 3", "x.yaml:1:1: seed 9 is not among the seeds\n"
     "  give seed or seeds, not both"),
    ("claims: 3", "x.yaml:1:9: claims must be a list, not 3"),
    ("tune: {axis: optim.lr}", "x.yaml:1:14: tune.axis must be one of the axes, and there are "
     'none, not "optim.lr"'),
    ("axes: {optim.lr: [1, 2]}\ntune: {axis: optim.r, by: test/accuracy}",
     'x.yaml:2:14: tune.axis must be optim.lr, not "optim.r"\n  did you mean optim.lr?\n'
     'x.yaml:2:27: tune.by must be val/accuracy or val/loss, not "test/accuracy"\n'
     "  did you mean val/accuracy?"),
    ("swept: [optim.rl]", "x.yaml:1:9: optim.rl is not a key\n  did you mean optim.lr?"),
    # setups and axes
    ("setups: {A b: {}, a-b: {}}", 'x.yaml:1:19: the setups "A b" and "a-b" share the folder name '
     "a-b"),
    ("setups: {é: {}, ß: {}}", 'x.yaml:1:17: setups: "ß" leaves no name for a folder\n'
     "  use a letter or a digit"),
    ("setups: {a: {seed: 1}}", "x.yaml:1:14: seed is not a key of a setup\n"
     "  seeds are shared by all setups, so that differences are paired"),
    ("setups: {a: {nrm: {}}}", "x.yaml:1:14: nrm is not a key of a setup\n  did you mean norm?"),
    ("setups: {a: 3}", "x.yaml:1:13: setups.a must be a mapping, not 3\n"
     "  write {norm: {kind: …}}"),
    ("setup: a\nsetups: {b: {}}", "x.yaml:1:1: setup and setups are both given\n"
     "  give one of them"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axes: [1]}}", "x.yaml:2:20: setups.a.axes must be a "
     "mapping, not a list\n  write axes: {optim.lr: [0.1, 1.0]}"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axes: {optim.l: [1]}}}", "x.yaml:2:21: optim.l is not a "
     "key\n  did you mean optim.lr?"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axes: {norm.eps: [1]}}}", "x.yaml:2:21: setups.a.axes: "
     "norm.eps is not an axis of the experiment\n"
     "  a setup may give values of its own for optim.lr"),
    ("setups: {a: {axes: {norm.eps: [1]}}}", "x.yaml:1:21: setups.a.axes: norm.eps is not an axis "
     "of the experiment\n"
     "  add norm.eps to `axes:` first; setups may then have values of their own"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axes: {optim.lr: []}}}",
     "x.yaml:2:31: setups.a.axes.optim.lr must be a list, {log: [a, b, n]} or {linear: "
     "[a, b, n]}, not an empty list"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axes: {optim.lr: 3}}}",
     "x.yaml:2:31: setups.a.axes.optim.lr must be a list, {log: [a, b, n]} or {linear: "
     "[a, b, n]}, not 3\n  write [3]"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axes: {optim.lr: [-1]}}, b: }",
     "x.yaml:2:32: optim.lr must be a number above 0 and at most 1e20, not -1 (setup a)"),
    ("axes: {optim.lr: 1}\nsetups: {a: {axes: {optim.lr: [2]}}}", "x.yaml:1:18: axes.optim.lr "
     "must be a list, {log: [a, b, n]} or {linear: [a, b, n]}, not 1\n  write [1]"),
    ("axes: {norm.groups: [2]}\n"
     "setups: {n: {norm: {kind: none}, axes: {norm.groups: [4]}}, g: {norm: {kind: group}}}",
     "x.yaml:2:41: no run of setup n has the key norm.groups\n"
     f"  groups is a key of kind {GROUPED}"),
    ("axes: {optim.lr: [1]}\nsetups: {a: {axis: {}}}", "x.yaml:2:14: axis is not a key of a setup"
     "\n  did you mean axes?"),
    ("axes: {optim.lr: []}", "x.yaml:1:18: axes.optim.lr "
     "must be a list, {log: [a, b, n]} or {linear: [a, b, n]}, not an empty list"),
    ("axes: {optim.lr: 3}", "x.yaml:1:18: axes.optim.lr "
     "must be a list, {log: [a, b, n]} or {linear: [a, b, n]}, not 3\n  write [3]"),
    ("axes: {optim.rl: [3]}", "x.yaml:1:8: optim.rl is not a key\n  did you mean optim.lr?"),
    ("axes: {optim: {lr: [3]}}", "x.yaml:1:8: optim is a block, not a key\n"
     "  axes take dotted keys: write optim.lr: …"),
    ("axes: {optim.lr: [{a: 1}]}", "x.yaml:1:19: axes.optim.lr takes plain values, not a mapping"),
    ("axes: {seed: [3]}", "x.yaml:1:8: seed is not an axis\n  seeds: lists the seeds"),
    ("axes: {optim.lr: [1, x]}",
     'x.yaml:1:22: optim.lr must be a number above 0 and at most 1e20, not "x"'),
    ("axes: {optim.lr: {log: [0, 1, 3]}}",
     "x.yaml:1:25: axes.optim.lr.log[0] must be a number above 0 and at most 1e20, not 0"),
    ("axes: {optim.lr: {log: [1, 2, 1]}}",
     "x.yaml:1:31: axes.optim.lr.log[2] must be a whole number from 2 to 10,000, not 1"),
    ("axes: {optim.lr: {log: [1, 2]}}", "x.yaml:1:24: axes.optim.lr.log must be [first, last, how "
     "many]: three numbers, not a list"),
    ("axes: {optim.lr: {logs: [1, 2, 3]}}", "x.yaml:1:18: axes.optim.lr must be a list, {log: [a, "
     "b, n]} or {linear: [a, b, n]}, not a mapping\n  did you mean log?"),
    ("axes: {norm.groups: [2, 4]}", "x.yaml:1:8: no run has the key norm.groups\n"
     f"  groups is a key of kind {GROUPED}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[case[0][:40] for case in CASES])
def test_fault(faults: Any, text: str, expected: str) -> None:
    assert faults(text) == expected


EVERY_KEY = [
    (block.name, block.tag, kind, key)
    for block in schema.BLOCKS.values()
    for kind, model in block.models.items()
    for key in model.model_fields
    if key != block.tag
]


def test_every_kind_is_among_them() -> None:
    kinds = {(name, kind) for name, _, kind, _ in EVERY_KEY}
    bare = {
        (block.name, kind)
        for block in schema.BLOCKS.values()
        for kind, model in block.models.items()
        if set(model.model_fields) == {block.tag}
    }
    expected = {
        (block.name, kind) for block in schema.BLOCKS.values() for kind in block.models
    } - bare
    assert kinds == expected
    assert len(EVERY_KEY) > 180


@pytest.mark.parametrize(("name", "tag", "kind", "key"), EVERY_KEY)
def test_every_key_of_every_kind_says_what_it_must_be(
    faults: Any, name: str, tag: str | None, kind: str | None, key: str
) -> None:
    chosen = f"{tag}: {kind}, " if tag else ""
    text = faults(f"{name}: {{{chosen}{key}: [{{}}]}}")
    found = [line for line in text.splitlines() if f"{name}.{key}" in line]
    assert len(found) == (2 if key == "betas" else 1)  # an item is wrong, and there is but one
    for line in found:
        assert re.search(rf": {name}\.{key}(\[0\])? must be \S.*, not a (list|mapping)$", line)
        assert "must be a mapping" not in line or key == "options"


PROBES = [
    ("landscap: {}", "probes.landscap is not a key of probes\n  did you mean probes.landscape?"),
    (
        "landscape: {evry: 2}",
        "probes.landscape.evry is not a key of probes.landscape\n"
        "  did you mean probes.landscape.every?",
    ),
    (
        "landscape: {images: 2}",
        "probes.landscape.images is not a key of probes.landscape\n"
        "  allowed: every, steps and relative_steps",
    ),
    (
        "landscape: {every: 0}",
        "probes.landscape.every must be a whole number from 1 to 1,000,000,000, not 0",
    ),
    (
        "batch_noise: {images: 1}",
        "probes.batch_noise.images must be a whole number from 2 to 1,000,000,000, not 1",
    ),
    (
        "landscape: {steps: [0.1, -1]}",
        "probes.landscape.steps[1] must be a number above 0 and at most 1e20, not -1",
    ),
    (
        "landscape: 3",
        "probes.landscape must be settings such as {every: 2}, true or false, not 3",
    ),
]


@pytest.mark.parametrize(("text", "expected"), PROBES)
def test_faults_inside_of_a_probe(faults: Any, text: str, expected: str) -> None:
    found = faults(f"probes: {{{text}}}").partition(": ")[2]
    assert found == expected


def test_all_at_once_in_file_order_command_line_last(faults: Any) -> None:
    text = "optim: {lr: 0}\nsetups:\n  gn: {norm: {kind: group, grops: 2}}\n  n: {norm: {kind: n}}"
    assert faults(text, "optim.lrr=1", "data.batch_size=x", over=("norm.kin=a",), seeds=0) == (
        "x.yaml:1:13: optim.lr must be a number above 0 and at most 1e20, not 0\n"
        'x.yaml:3:28: norm.grops is not a key of kind "group" (setup gn)\n'
        "  did you mean norm.groups?\n"
        f'x.yaml:4:20: norm.kind must be {NORMS}, not "n" (setup n)\n'
        "--set optim.lrr: optim.lrr is not a key\n"
        "  did you mean optim.lr?\n"
        "--set data.batch_size: data.batch_size must be a whole number from 1 to 1,000,000,000, "
        'not "x"\n'
        "--over norm.kin: norm.kin is not a key\n"
        "  did you mean norm.kind?\n"
        "--seeds: seeds must be a whole number from 1 to 1,000,000, or a list of seeds, not 0"
    )


def test_a_base_key_that_every_setup_overrides_is_still_judged(faults: Any) -> None:
    text = "norm: {kind: group, grops: 2}\nsetups:\n  a: {norm: {kind: none}}\n"
    assert faults(text) == (
        'x.yaml:1:21: norm.grops is not a key of kind "group"\n  did you mean norm.groups?'
    )


def test_long_values_are_shortened(faults: Any) -> None:
    assert faults(f"optim: {{lr: {'x' * 500}}}") == (
        f'x.yaml:1:13: optim.lr must be a number above 0 and at most 1e20, not "{"x" * 59}…"'
    )
