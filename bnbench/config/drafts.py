"""New studies: the text of the file, with comments, and of the Python files that it names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path

from bnbench.config import schema
from bnbench.config.datasets import folder_facts
from bnbench.config.files import inline
from bnbench.errors import UsageError
from bnbench.wording import counted, did_you_mean, listing, nearest, shortened

OWN = "own"
LIBRARIES = ("torchvision", "timm")
GENERATED = "synthetic"
RATES = (0.02, 0.1, 0.5, 2.5)
"""Of batches of 64, of other sizes in proportion, which makes the best rates of all sizes alike: of
2 to 32 images, three epochs, BatchNorm and GroupNorm have theirs at 0.3 to 1.2
(`runs/reference/claims/batch-size.json`), networks without normalization at 0.05 to 0.1."""
STEPS, IMAGES_SEEN = 150, 2000
"""Of the largest batches, at least: the initial values of running statistics weigh 1 % after 44
steps, and weights move until the end of the schedule, which statistics follow later."""
MOST_TIMES = 4
"""As large as the largest batch, where statistics over all sizes are compared: training takes that
many times as long."""

NETWORK = '''\
"""The network of {study}."""

from torch import nn


def build(in_channels, classes):
    """Any classifier with BatchNorms; each setup has them exchanged for its norm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )
'''
IMAGES = '''\
"""The images of {study}."""

import numpy as np


def load():
    """(train, test), each (images, labels) or a dataset with items (image, label): any images of
    one size, labels from 0. Here stripes in noise: none, across, down."""
    draw = np.random.default_rng(0)

    def part(count):
        labels = draw.integers(0, 3, count)
        images = draw.normal(128, 60, (count, 24, 24))
        images[labels == 1, 4:8] += 40
        images[labels == 2, :, 4:8] += 40
        return images.clip(0, 255).astype(np.uint8), labels

    return part(2000), part(500)
'''
NORM = '''\
"""The normalization of {study}."""

import torch
from torch import nn


class Norm(nn.Module):
    """Made as Norm(channels). Here: each image over its root mean square."""

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(channels))

    def forward(self, x):  # (N, C, H, W)
        square = x.square().mean(tuple(range(1, x.ndim)), keepdim=True)
        weight = self.weight.reshape(-1, *[1] * (x.ndim - 2))
        return weight * x / (square + self.eps).sqrt()
'''


@dataclass(frozen=True, slots=True)
class Draft:
    """What a new study asks. `compared`: kinds of norms, or "own". `model`: a kind, LIBRARY:NAME or
    "own"; `data`: a dataset, a folder or "own". `looks`: numbers of seeds at which its claim is
    judged, the last one all. `better` is claimed to be more accurate than `worse`: two of
    `arms`."""

    compared: tuple[str, ...]
    model: str
    data: str
    batch_sizes: tuple[int, ...]
    looks: tuple[int, ...]
    better: str
    worse: str

    def texts(self, path: Path) -> tuple[str, dict[Path, str]]:
        """The text of the study at a path, and those of the Python files beside it."""
        stem = re.sub(r"\W", "_", path.stem)
        own = {
            "model": (self.model == OWN, NETWORK, "build"),
            "data": (self.data == OWN, IMAGES, "load"),
            "norm": (OWN in self.compared, NORM, "Norm"),
        }
        code, targets = {}, {}
        for part, (wanted, text, name) in own.items():
            file = path.with_name(f"{stem}_{part}.py")
            targets[part] = f"{file.name}:{name}"
            if wanted:
                code[file] = text.format(study=path.name)
        return "".join(f"{line}\n" for line in self._lines(targets, path.parent)), code

    def _lines(self, targets: dict[str, str], folder: Path) -> Iterator[str]:
        where, arm, than = self._claimed()
        says = f"{f'at {where} ' * bool(where)}{arm} is more accurate than {than}"
        question = f"{f'At {where}, is' if where else 'Is'} {arm} more accurate than {than}?"
        yield "# `bnbench explain KEY` says what a key means; every key has a default."
        yield f"question: {inline(question)}"
        yield f"model: {self._model(targets['model'])}"
        whole = (lcm(*self.batch_sizes),) if self._statistics_alone() else self.batch_sizes
        yield f"data: {self._data(targets['data'], folder, whole)}"
        yield _beside(
            "optim: {lr_rule: linear}", "rates are of batches of 64, others in proportion"
        )
        images = max(IMAGES_SEEN, STEPS * whole[-1])
        yield _beside(f"train: {{examples: {images}}}", "or epochs, or steps")
        yield _beside("setups:", "each is a patch on what stands above")
        for name in self.compared:
            norm = f"kind: {name}"
            if name == OWN:
                norm = f"kind: custom, target: {inline(targets['norm'])}"
            yield f"  {inline(name)}: {{norm: {{{norm}}}}}"
        yield _beside("axes:", "crossed with every setup")
        values = inline(self.batch_sizes)
        if self._statistics_alone():
            yield _beside(f"  norm.batch_size: {values}", "images that share statistics")
            yield f"  # or data.batch_size: {values}, where smaller ones take more steps"
        elif len(self.batch_sizes) > 1:
            yield _beside(f"  data.batch_size: {values}", "smaller ones take more steps")
        yield _beside(f"  optim.lr: {inline(RATES)}", "if an end is the best, add values there")
        yield "tune: {axis: optim.lr, by: val/accuracy, race: true} # worse ones get fewer seeds"
        what = "at most: added until the claim is decided" * (len(self.looks) > 1)
        yield _beside(f"seeds: {self.looks[-1]}", what or "from six on a claim can be decided")
        if what:
            yield _beside(f"looks: {inline(self.looks)}", "when it is judged, corrected for that")
        yield "claims:"
        yield "  - id: more-accurate"
        yield f"    says: {inline(says)}"
        yield _beside("    metric: test/running/accuracy", "`bnbench explain metrics` lists others")
        yield f"    better: {inline(self.better)}"
        yield f"    worse: {inline(self.worse)}"
        yield _beside("    smallest_effect: 1", "percentage points; less does not matter")

    def _statistics_alone(self) -> bool:
        """Whether a norm is compared with itself, and can be by its statistics alone: over chunks
        of batches that all sizes divide, in as many steps, unless these were many times as large
        as the largest."""
        norm, other = (each.partition("@")[0] for each in (self.better, self.worse))
        kind = schema.BLOCKS["norm"].models.get(norm)
        if norm != other or kind is None or not issubclass(kind, schema.Chunked):
            return False
        return lcm(*self.batch_sizes) <= MOST_TIMES * self.batch_sizes[-1]

    def _claimed(self) -> tuple[str, str, str]:
        """At which batch size, what, and than what it is more accurate."""
        arms = (self.better.partition("@"), self.worse.partition("@"))
        (better, _, at), (worse, _, other) = ((called(norm), *rest) for norm, *rest in arms)
        if at == other:
            return f"batches of {at or self.batch_sizes[0]}", better, worse
        if self._statistics_alone():  # true of both ways to compare them
            images = counted(int(at), "image")
            return "", f"{better} with statistics over {images}", f"over {int(other):,}"
        than = f"{worse} " * (worse != better)
        return "", f"{better} at batches of {at}", f"{than}at batches of {other}"

    def _model(self, target: str) -> str:
        library, _, name = self.model.partition(":")
        if self.model == OWN:
            return f"{{kind: custom, target: {inline(target)}, norm: swap}}"
        if library == "torchvision":
            stem = "" if re.match("(wide_)?resne[xt]", name) else ", stem: imagenet"
            return f"{{kind: torchvision, name: {inline(name)}, norm: swap{stem}}}"
        return f"{{kind: {library}, name: {inline(name)}}}" if name else f"{{kind: {library}}}"

    def _data(self, target: str, folder: Path, sizes: tuple[int, ...]) -> str:
        keys = {"dataset": self.data}
        if self.data == OWN:
            keys = {"dataset": "custom", "target": target}
        elif self.data not in datasets():
            keys = {"dataset": "image-folder", "root": os.path.relpath(self.data, folder)}
        words = [f"{key}: {inline(value)}" for key, value in keys.items()]
        if "root" in keys:
            facts = folder_facts(self.data, 3, 32)
            held = max(facts.classes, min(1000, facts.train_images // 5))
            words += ["image_size: 32", f"validation_size: {held}"]
        if "target" in keys:  # of the example's 2,000
            words.append("validation_size: 100")
        if len(sizes) == 1:
            words.append(f"batch_size: {sizes[0]}")
        return f"{{{', '.join(words)}}}"


def _beside(line: str, comment: str) -> str:
    return f"{line:<40} # {comment}"


def called(norm: str) -> str:
    """What a sentence calls a kind: the first words of its description, such as GroupNorm."""
    kind = schema.BLOCKS["norm"].models.get(norm)
    if kind is None:
        return "the new layer"
    if norm == "none":
        return "the network without normalization"
    name = re.split(r"[:;,] | \(", kind.__doc__ or norm)[0]
    return name[0].lower() + name[1:] if name.partition(" ")[0].istitle() else name


# --- what may be asked ----------------------------------------------------------------------------


def norms() -> list[str]:
    """Kinds that need no key, and "own"."""
    return [*_without_keys("norm"), OWN]


def models() -> list[str]:
    """Kinds that need no key, examples of those of libraries, and "own"."""
    return [*_without_keys("model"), *(f"{each}:resnet18" for each in LIBRARIES), OWN]


def datasets() -> list[str]:
    """Those that need no key, and "own"."""
    return [*(each for each in _without_keys("data") if each != GENERATED), OWN]


def _without_keys(block: str) -> list[str]:
    family = schema.BLOCKS[block]
    return [
        kind
        for kind, model in family.models.items()
        if kind is not None
        and not any(info.is_required() for key, info in model.model_fields.items()
                   if key != family.tag)
    ]  # fmt: skip


def compared(text: str) -> tuple[str, ...]:
    """Norms with commas between them. Raises UsageError."""
    names = tuple(dict.fromkeys(_known(each, norms(), "norm") for each in _split(text)))
    if not names:
        raise UsageError("no norm is named", do="write commas between them: batch,group")
    return names


def model(text: str) -> str:
    """A network. Raises UsageError."""
    library, _, name = text.partition(":")
    if library in LIBRARIES and re.fullmatch(r"[\w.]+", name):
        return text
    return _known(text, models(), "network", f" ({listing(LIBRARIES)} take any name)")


def data(text: str) -> str:
    """A dataset, or a folder of images. Raises UsageError."""
    if Path(text, "train").is_dir():
        return text
    return _known(text, datasets(), "dataset", ", or a folder that holds train/ and test/")


def batch_sizes(
    text: str, least: int = 1, option: str = "", compared: Sequence[str] = ()
) -> tuple[int, ...]:
    """Whole numbers with commas between them, sorted; several where a single norm is `compared`.
    Raises UsageError."""
    sizes = _split(text)
    whole = all(re.fullmatch("[1-9][0-9]{0,8}", each) for each in sizes)
    if not sizes or not whole or min(map(int, sizes)) < least:
        raise UsageError(
            f"{option} {shortened(text)}: batch sizes are whole numbers from {least}".lstrip(),
            do="write commas between them: 4,32",
        )
    if len(compared) == 1 and len({*sizes}) == 1:
        raise UsageError(
            f"{compared[0]} at batches of {sizes[0]} has nothing to be compared to",
            do="name two norms, or two batch sizes: 4,32",
        )
    return tuple(sorted({*map(int, sizes)}))


def sizes_named(*arms: str | None) -> str:
    """Batch sizes of arms such as batch@2, which a claim names, beside 4 or 32 where these are
    fewer than two."""
    found = {int(size) for arm in arms for size in re.findall("@([0-9]{1,9})$", arm or "")} or {32}
    if len(found) == 1:
        found |= {4} if min(found) >= 32 else {32}
    return ",".join(map(str, sorted(found)))


def seeds(text: str) -> int:
    """How many. Raises UsageError."""
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise UsageError(f"{shortened(text)}: a whole number from 1 to 999,999 is wanted")
    return int(text)


def arms(norms: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """What a claim may name: norms, where there are several batch sizes at each of them."""
    return [f"{norm}@{size}" if len(sizes) > 1 else norm for size in sizes for norm in norms]


def one_of(arms: list[str]) -> Callable[[str], str]:
    """Reads one of these; a norm alone is at the smallest of its batch sizes. Raises UsageError."""
    first = {each.partition("@")[0]: each for each in reversed(arms)}
    return lambda text: _known(first.get(text, text), arms, "setup")


def _split(text: str) -> list[str]:
    return [each for each in re.split(r"[,\s]+", text) if each]


def _known(name: str, among: list[str], what: str, more: str = "") -> str:
    if name in among:
        return name
    there = f"there {'is' if len(among) == 1 else 'are'} {listing(among, 'and')}{more}"
    raise UsageError(
        f"{shortened(name)} is no {what} that `new` knows",
        do=did_you_mean(nearest(name, among)) or there,
    )
