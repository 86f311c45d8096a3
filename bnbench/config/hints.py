"""Names that there are not, and which ones were probably meant."""

from __future__ import annotations

import re
from typing import Any

from bnbench.config import schema
from bnbench.config.schema import BLOCKS, Family, Key
from bnbench.config.schema.base import TARGET
from bnbench.wording import PATH_LENGTH, did_you_mean, listing, nearest, shortened

# What other programs call a block, or a key, or what it is called for short.
BLOCKS_ALSO_CALLED = {
    "data": "dataset datasets dataloader loader",
    "model": "network net architecture backbone cnn",
    "norm": "normalization normalisation normalizer norms bn batchnorm batch_norm norm_layer",
    "optim": "optimizer optimiser optimization opt",
    "train": "training trainer fit",
    "compute": "hardware",
}
ALSO_CALLED = {
    "optim.lr": "learning_rate learningrate base_lr max_lr init_lr",
    "optim.kind": "optimizer optimiser",
    "optim.momentum": "sgd_momentum",
    "norm.momentum": "bn_momentum",
    "optim.weight_decay": "wd l2 decay_rate",
    "optim.warmup": "warmup_steps warmup_epochs",
    "optim.schedule": "scheduler lr_scheduler lr_schedule",
    "data.dataset": "dataset dataset_name",
    "data.root": "data_dir data_path data.path data.dir data.folder",
    "data.train_size": "fraction data_fraction train_fraction subset limit images n_train n_images "
    "num_samples n_samples max_samples samples train_subset limit_train data.size data.train",
    "data.batch_size": "bs batch batchsize batch_size",
    "data.validation_size": "val_size val_split val_fraction validation_split data.val",
    "data.order": "shuffle",
    "data.augment": "augmentation augmentations transform transforms data_augmentation",
    "model.widths": "channels layers hidden filters num_layers n_layers num_channels",
    "model.kind": "network architecture arch",
    "norm.kind": "normalization normalisation norm_layer norm_type",
    "norm.groups": "num_groups n_groups",
    "norm.placement": "position where location norm_position",
    "norm.batch_size": "virtual_batch_size ghost_batch_size norm.batch",
    "norm.eps": "epsilon",
    "train.epochs": "epoch num_epochs n_epochs max_epochs",
    "train.steps": "max_steps iterations num_steps n_steps iters",
    "train.examples": "train.images train.samples",
    "compute.device": "gpu accelerator",
    "compute.threads": "num_workers workers num_threads",
    "compute.precision": "dtype amp fp16 bf16 half mixed_precision",
    "experiment": "name experiment_name project",
    "log": "logger loggers logging tracker trackers report_to wandb mlflow trackio",
    "setups": "arms variants methods",
    "axes": "grid sweep search hyperparameters hparams",
    "seeds": "repeats repetitions replicates trials n_seeds num_seeds n_runs",
    "seed": "random_seed random_state manual_seed",
}
# What a value is called elsewhere, without -, _, a final 1d or 2d and a final "norm".
VALUES_ALSO_CALLED = {
    "norm.kind": {
        "none": "off no false null nothing identity",
        "batch": "bn",
        "ghost": "gbn ghostbatch",
        "batch-renorm": "brn re",
        "group": "gn",
        "layer": "ln",
        "instance": "in",
        "frn": "filterresponse",
        "evonorm-s0": "evo evos0",
        "group-ws": "ws gnws weightstandardization",
        "scaled-ws": "nf sws",
        "frozen": "frozenbatch",
        "noisy": "noisybatch",
    },
    "norm.placement": {"before": "pre preact preactivation", "after": "post postactivation"},
    "model.kind": {
        "plain": "cnn conv vgg simple",
        "torchvision": "resnet18 resnet34 resnet50 vgg11 vgg16 densenet121 alexnet googlenet",
    },
    "model.activation": {"silu": "swish"},
    "data.dataset": {"fashion-mnist": "fashion fmnist", "image-folder": "imagenet imagefolder"},
    "data.augment": {"flip-crop": "true yes on standard crop flip", "none": "false no off"},
    "optim.kind": {"adamw": "adam"},
    "optim.schedule": {"cosine": "cosineannealing annealing cos", "step": "multistep steplr"},
    "compute.device": {"cuda": "gpu nvidia", "mps": "metal apple"},
    "compute.precision": {"bf16": "fp16 float16 half amp bfloat16 16", "fp32": "float32 float 32"},
}
# What other programs have a key for, and what there is instead.
INSTEAD = {
    "each run trains for its whole budget, so that runs can be compared: train.epochs, train.steps "
    "or train.examples": "early_stopping early_stop patience",
    "optim.momentum is heavy-ball momentum, without Nesterov's": "nesterov",
    "gradients are not clipped": "clip grad_clip clip_grad gradient_clipping max_grad_norm",
    "--runs-dir DIR says where experiments are stored": "output_dir out output logdir log_dir "
    "save_dir results_dir runs_dir",
    "the same command again continues a run": "resume",
    "norm.kind frozen and the probes show what running statistics do; every evaluation measures "
    "running, batch and population statistics": "track_running_stats",
}

SWAP = (
    "swap is a value of model.norm: write model: {kind: custom, target: …, norm: swap}, or leave "
    "it out with torchvision and timm; the layer that comes in stands under norm"
)
ALWAYS_SWAPPED = "a network of timm always has its BatchNorms exchanged: leave norm out"


def plain(key: str) -> str:
    return key.lower().replace("-", "_")


def called(word: str, names: dict[str, str] = ALSO_CALLED) -> str | None:
    """The name whose other names include a word."""
    return next((name for name, words in names.items() if word in words.split()), None)


def bare(value: str) -> str:
    """A value without what people add to it or leave out: BatchNorm2d is batch."""
    return re.sub("(norm)?([12]d)?$", "", re.sub("[-_ ]", "", value.lower()))


def value_called(key: str, word: str) -> str | None:
    """The value of a key that is also called so."""
    return called(bare(word), VALUES_ALSO_CALLED.get(key, {}))


def keys_called(dotted: str, value: Any = None) -> list[str]:
    """The keys, dotted, that one which is not there is called here: `lr`, `train.lr`, `bn.eps`.

    [] where only a guess is left. A mapping as `value` makes a single word the name of a block.
    """
    *around, word = plain(dotted).split(".")
    block = (called(around[0], BLOCKS_ALSO_CALLED) or around[0]) if around else None
    if not around and isinstance(value, dict) and (name := called(word, BLOCKS_ALSO_CALLED)):
        return [name]
    if name := called(".".join((*around, word))):
        return [name]
    if block in BLOCKS and block != around[0] and word in BLOCKS[block].keys:
        return [f"{block}.{word}"]
    if block in BLOCKS and BLOCKS[block].tag and word in ("kind", "name", "type"):
        return [f"{block}.{BLOCKS[block].tag}"]
    if name := called(word):
        return [name]
    others = [each for each in BLOCKS.values() if word in each.keys and word != each.tag]
    return [f"{each.name}.{word}" for each in others]


def instead(word: str) -> str | None:
    """What there is in place of a key that other programs have."""
    return called(word, INSTEAD)


def kind_called(family: Family, word: str) -> str | None:
    """The kind of a block that a word is another name of."""
    kinds = {bare(kind): kind for kind in family.kinds}
    return kinds.get(bare(word)) or value_called(f"{family.name}.{family.tag}", word)


def value_meant(word: str) -> tuple[str, str] | None:
    """The key and its kind that a word is rather than a key: `bn` is `norm.kind`, `batch`."""
    for family in BLOCKS.values():
        if kind := kind_called(family, word):
            return f"{family.name}.{family.tag}", kind
    return None


def in_a_block(key: str, value: str) -> str:
    """A value of a dotted key as a file has it: `norm: {kind: batch}`."""
    block, _, name = key.partition(".")
    return f"{block}: {{{name}: {value}}}"


def meant_block(family: Family, value: Any) -> str | None:
    """What to write instead of a value that is no mapping, where a block is one."""
    if isinstance(value, str) and "custom" in family.kinds and re.fullmatch(TARGET, value):
        target = shortened(value, PATH_LENGTH)
        return f"write {family.name}: {{{family.tag}: custom, target: {target}}}"
    if write := written_out(family, value):
        return write
    if isinstance(value, str) and (kind := nearest_kind(family, value)):
        return f"write {in_a_block(f'{family.name}.{family.tag}', kind)}"
    return "write norm: {kind: none} for no normalization" if family.name == "norm" else None


def meant(dotted: str, value: Any = None, guess: str | None = None) -> str | None:
    """A hint for a key that belongs in another block, has another name here, or is a value.

    `guess`: the hint for a key that is written nearly like this one, if there is such.
    """
    *_, word = plain(dotted).split(".")
    if word in ("kind", "type") and isinstance(value, str) and (of := value_meant(value)):
        return f"write {in_a_block(*of)}"
    if names := keys_called(dotted, value):
        return did_you_mean(listing(names))
    if word in schema.ExperimentFile.model_fields:
        if dotted == word:
            return f"{word} can only stand at the top of the file"
        return f"did you mean {word}, at the top of the file?"
    if sentence := instead(word):
        return sentence
    kind = value_meant(word)
    of_kind = f"did you mean {kind[0]}, with the value {kind[1]}?" if kind else None
    # norm.group is norm.groups rather than norm.kind, but resnet is not set.
    return guess or of_kind if "." in dotted else of_kind or guess


def written_out(family: Family, value: Any) -> str | None:
    """What to write where a network of torchvision, or to swap, is taken for a kind."""
    if family.name == "norm" and value == "swap":
        return SWAP
    named = isinstance(value, str) and value_called(f"{family.name}.kind", value) == "torchvision"
    return f"write model: {{kind: torchvision, name: {plain(value)}}}" if named else None


def nearest_kind(family: Family, word: str) -> str | None:
    """The kind that a word which is none probably means."""
    return kind_called(family, word) or nearest(word, family.kinds, 0.6)


def no_dotted_key(key: Key, axis: Any = None) -> tuple[str, str | None]:
    """Message and hint for a dotted key that is not there; `axis`: its values as an axis."""
    dotted, block = ".".join(key), BLOCKS.get(key[0])
    if dotted in ("seed", "seeds"):
        return f"{dotted} is not an axis", "seeds: lists the seeds"
    if block and len(key) == 1 and isinstance(axis, dict):
        write = f"axes take dotted keys: write {dotted}.{next(iter(axis), '…')}: …"
        return f"{dotted} is a block, not a key", write
    if block and len(key) == 1:
        keys = listing(f"{dotted}.{each}" for each in block.keys)
        return f"{dotted} is a block, not a key", f"name one key of it: {keys}"
    hint = meant(dotted, axis, did_you_mean(nearest(dotted, schema.every_key(), 0.75)))
    if not hint and not block:
        hint = f"blocks: {listing(BLOCKS, 'and')}"
    return f"{shortened(dotted)} is not a key", hint
