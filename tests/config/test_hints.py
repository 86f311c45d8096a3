"""What people type who know other programs, and the hint that they get, wherever they type it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnbench import explain
from bnbench.config import hints, loading, schema
from bnbench.config.schema import BLOCKS
from bnbench.errors import ConfigError, UsageError

KEYS = {
    "data.fraction": "data.train_size",
    "data.subset": "data.train_size",
    "data.limit": "data.train_size",
    "images": "data.train_size",
    "subset": "data.train_size",
    "data.kind": "data.dataset",
    "data.path": "data.root",
    "epochs": "train.epochs",
    "training.epochs": "train.epochs",
    "train.images": "train.examples",
    "lr": "optim.lr",
    "learning_rate": "optim.lr",
    "learning-rate": "optim.lr",
    "train.lr": "optim.lr",
    "optim.learning_rate": "optim.lr",
    "optimizer.lr": "optim.lr",
    "optimizer": "optim.kind",
    "optim.name": "optim.kind",
    "wd": "optim.weight_decay",
    "batch_size": "data.batch_size",
    "train.batch_size": "data.batch_size",
    "optim.batch_size": "data.batch_size",
    "momentum": "norm.momentum or optim.momentum",
    "bn.momentum": "norm.momentum",
    "norm.type": "norm.kind",
    "norm.num_groups": "norm.groups",
    "norm.position": "norm.placement",
    "model.layers": "model.widths",
    "device": "compute.device",
    "train.device": "compute.device",
    "fp16": "compute.precision",
    "bn": "norm.kind, with the value batch",
    "batchnorm": "norm.kind, with the value batch",
    "GroupNorm": "norm.kind, with the value group",
    "resnet": "model.kind, with the value resnet",
    "cifar10": "data.dataset, with the value cifar10",
}


def fault(tmp_path: Path, text: str, overrides: loading.Overrides | None = None) -> str:
    """What is said of a file."""
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        loading.load_experiment(path, overrides)
    return str(error.value)


@pytest.mark.parametrize(("typed", "meant"), KEYS.items())
def test_a_key_of_another_program_leads_to_ours_wherever_it_is_typed(
    tmp_path: Path, typed: str, meant: str
) -> None:
    hint = f"did you mean {meant}?"
    argument = (f"{typed}=1",)
    overrides = loading.Overrides(set=argument), loading.Overrides(over=argument)
    for option, each in zip(("set", "over"), overrides, strict=True):
        said = fault(tmp_path, "", each)
        assert said == f"--{option} {typed}: {typed} is not a key\n  {hint}"
    head, _, tail = typed.partition(".")
    said = fault(tmp_path, f"{head}: {{{tail}: 1}}" if tail else f"{head}: 1")
    if tail and head not in BLOCKS:  # the file's fault is the block's name
        hint = f"did you mean {meant.partition('.')[0]}?"
    assert said.endswith(f"\n  {hint}")


@pytest.mark.parametrize(("typed", "meant"), KEYS.items())
def test_explain_shows_what_such_a_word_means(typed: str, meant: str) -> None:
    found = {each.name for each in explain.find(typed)}
    key, _, value = meant.partition(", with the value ")
    family = BLOCKS[key.partition(".")[0]]
    if value:
        assert found == {value}
    elif key.endswith((".kind", ".dataset")):
        assert found == set(family.kinds)
    else:
        assert set(key.split(" or ")) <= found


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("norm: {kind: BatchNorm2d}", "batch"),
        ("norm: {placement: pre}", "before"),
        ("data: {dataset: imagenet}", "image-folder"),
        ("data: {augment: true}", "flip-crop"),
        ("optim: {kind: adam}", "adamw"),
        ("optim: {schedule: multistep}", "step"),
        ("compute: {device: gpu}", "cuda"),
        ("compute: {precision: fp16}", "bf16"),
    ],
)
def test_a_value_of_another_program_leads_to_ours(tmp_path: Path, text: str, hint: str) -> None:
    assert fault(tmp_path, text).endswith(f"\n  did you mean {hint}?")


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("norm: mine.py:Norm", "norm: {kind: custom, target: mine.py:Norm}"),
        ("norm: BatchNorm2d", "norm: {kind: batch}"),
        ("norm: 3", "norm: {kind: none} for no normalization"),
        ("setups: {a: batchnorm}", "{norm: {kind: batch}}"),
        ("setups: {a: {kind: gn}}", "norm: {kind: group}"),
        ("setups: {a: {norm: gn}}", "norm: {kind: group}"),
    ],
)
def test_a_word_where_a_mapping_belongs_is_written_out(
    tmp_path: Path, text: str, write: str
) -> None:
    assert fault(tmp_path, text).endswith(f"\n  write {write}")


@pytest.mark.parametrize("word", ["patience", "nesterov", "grad_clip", "output_dir", "resume"])
def test_what_there_is_not_is_said_to_be_so(tmp_path: Path, word: str) -> None:
    sentence = hints.instead(word)
    assert sentence is not None
    assert fault(tmp_path, f"{word}: 1").endswith(sentence)
    assert fault(tmp_path, f"optim: {{{word}: 1}}").endswith(sentence)
    with pytest.raises(UsageError) as error:
        explain.find(word)
    assert error.value.do == sentence


def test_the_tables_lead_to_what_there_is_and_hide_nothing() -> None:
    top = schema.ExperimentFile.model_fields
    assert hints.ALSO_CALLED.keys() <= {*schema.every_key(), *top}
    assert hints.BLOCKS_ALSO_CALLED.keys() <= BLOCKS.keys()
    for words in (*hints.ALSO_CALLED.values(), *hints.INSTEAD.values()):
        assert not {*words.split()} & {*schema.every_key(), *BLOCKS, *top}
    for key, values in hints.VALUES_ALSO_CALLED.items():
        for value in values:
            assert value in explain_values(key)


def explain_values(key: str) -> str:
    """What a key may be, as its users read it."""
    block, _, name = key.partition(".")
    family = BLOCKS[block]
    if name == family.tag:
        return " ".join(family.kinds)
    return " ".join(each.allowed for each in explain.find(key) if isinstance(each, explain.Key))


NETWORKS = {
    "norm: swap": "swap is a value of model.norm: ",
    "norm: {kind: swap, target: my.py:Norm}": "swap is a value of model.norm: ",
    "model: resnet18": "write model: {kind: torchvision, name: resnet18}",
    "model: {kind: resnet18}": "write model: {kind: torchvision, name: resnet18}",
    "model: {kind: timm, name: resnet18, norm: swap}": "a network of timm always has its BatchNo",
    "model: {kind: torchvison}": "did you mean torchvision?",
}


@pytest.mark.parametrize(("text", "hint"), NETWORKS.items())
def test_a_network_of_others_is_found_at_the_first_try(
    tmp_path: Path, text: str, hint: str
) -> None:
    assert f"\n  {hint}" in fault(tmp_path, text)
