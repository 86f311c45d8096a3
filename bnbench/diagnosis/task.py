"""What a network is for, seen from its outputs and labels: what each example costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bnbench.diagnosis.answers import (
    answer,
    classes_at,
    classes_in,
    counted,
    heads,
    in_unit,
    known_mean,
    log_shares,
    of_two,
    per_place,
    place_of,
    shares_at,
    total,
)
from bnbench.diagnosis.batches import GRAPHS, Collected
from bnbench.diagnosis.foreign import described, shape
from bnbench.diagnosis.grouping import Path
from bnbench.diagnosis.predictions import Predictions, joined, over_places, some
from bnbench.diagnosis.result import NATS
from bnbench.diagnosis.route import part
from bnbench.errors import UsageError

Score: TypeAlias = Callable[[Any, Any], Any]
"""What a batch costs: score(output, batch) → losses (examples,), or one for the whole batch."""

Kind: TypeAlias = Literal["classes", "binary", "soft", "values", "outputs", "own", "training"]

LOSSES: Mapping[Kind, str] = {
    "classes": "cross entropy, nats",
    "binary": "binary cross entropy, nats",
    "soft": "cross entropy, nats",
    "values": "squared error, as a share of the labels' variance",
    "outputs": "squared distance of the outputs from those under batch statistics, as a share of "
    "their variance",
    "own": "as score() gives it",
    "training": "what the model gives in train() as its loss, or the sum of it, dropout off",
}
"""What `loss` means, by what the labels are. `outputs`: there are none."""

UNITS: Mapping[Kind, str] = {
    **dict.fromkeys(("classes", "binary", "soft"), NATS),
    "values": "of the labels' variance",
    "outputs": "of the outputs' variance",
    **dict.fromkeys(("own", "training"), ""),
}
"""Of the loss."""

CODE = """\
say what each example costs:
    def score(output, batch):  # losses, one for each example
        return F.mse_loss(output, batch[1], reduction="none").flatten(1).mean(1)
  then call diagnose(model, loader, score=score), or, for the command, return
    {"model": model, "train": loader, "score": score}"""
"""What to write where outputs and labels are not understood."""

ENLARGED = (
    "enlarge the outputs to the labels, as the loss in training does: forward=lambda model, batch: "
    "F.interpolate(model(batch[0]), size=batch[1].shape[-2:])"
)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """How examples are judged. `scale`: of values, the variance that counts as 1. `classes`: how
    many the network tells apart, where each place has one. `two`: the labels of no and yes;
    `shares`: whether outputs for them are a sigmoid's. `place`: of the answer in a tuple;
    `doubtful`: whether another might be it."""

    kind: Kind
    labels: Path | None = None
    score: Score | None = None
    scale: float = 1.0
    classes: int = 0
    two: tuple[int, int] = (0, 1)
    shares: bool = True
    place: int = 0
    doubtful: bool = False

    @property
    def unit(self) -> str:
        """Of the loss."""
        return UNITS[self.kind]

    def judged(self, output: Any, batch: Any, count: int, reference: Tensor | None) -> Predictions:
        """A batch of `count` examples. `reference`: (n, parts), of outputs without labels."""
        if self.kind in ("own", "training"):
            return self._own(output, batch, count)
        found = answer(output, self.place)
        assert found is not None
        found = found.detach().to("cpu", torch.float64)
        if self.kind == "outputs":
            values = some(found) / self.scale**0.5
            distance = torch.zeros(count, dtype=torch.float64)
            if reference is not None:
                distance = (values - reference).square().mean(1)
            return Predictions(distance, None, values)
        assert self.labels is not None
        given = None
        with suppress(LookupError, TypeError):
            given = part(batch, self.labels)
        if not isinstance(given, Tensor):
            are = "missing" if given is None else described(given)
            raise UsageError(f"labels are {are}", do="give them as in the training loader")
        if self.kind in ("binary", "values") and given.numel() != found.numel():
            raise _not_understood(found, given)
        return self._of_labels(found, given.detach().to("cpu"))

    def _of_labels(self, found: Tensor, labels: Tensor) -> Predictions:
        match self.kind:
            case "classes" | "soft":  # shares in one loader, as of mixup, numbers in the other
                at = shares_at(labels) if labels.shape == found.shape else None
                if at is None:
                    return _of_classes(found, labels)
                found, labels = found.movedim(at, 1), labels.movedim(at, 1)
                losses = -(labels.double() * log_shares(found)).sum(1)
                every, said = torch.ones_like(losses, dtype=torch.bool), found.argmax(1)
                return over_places(losses, said == labels.argmax(1), every, said)
            case "binary":
                return self._of_two(found, labels.reshape(found.shape).double())
            case _:
                labels = labels.reshape(found.shape).double()
                losses, values = (found - labels).square() / self.scale, found / self.scale**0.5
                return over_places(losses, None, ~labels.isnan(), values)

    def _of_two(self, found: Tensor, labels: Tensor) -> Predictions:
        no, yes = (labels == each for each in self.two)
        shares = self.shares and in_unit(found)
        logits = found.clamp(1e-12, 1 - 1e-12).logit() if shares else found
        losses = F.binary_cross_entropy_with_logits(logits, yes.double(), reduction="none")
        said = logits > 0
        return over_places(losses, said == yes, no | yes, said.long())

    def by_constant(self, labels: Tensor) -> Predictions:
        """What labels, (n, …), cost if the answer is always the same: their frequencies, of dense
        ones over all places; of values the mean of each place."""
        labels = labels.detach().to("cpu")
        match self.kind:
            case "classes":
                counted = labels[(labels >= 0) & (labels < self.classes)].long()
                constant = torch.bincount(counted, minlength=self.classes).double() / len(counted)
                constant = constant.view(-1, *[1] * (labels.ndim - 1))
                shape: tuple[int, ...] = (self.classes, *labels.shape[1:])
            case "binary":
                places = (0,) if labels.ndim == 2 else tuple(range(labels.ndim))
                no, yes = ((labels == each).sum(places).double() for each in self.two)
                constant, shape = yes / (no + yes).clamp(min=1), labels.shape[1:]
            case "soft":
                at = cast(int, shares_at(labels))
                constant, shape = labels.double().movedim(at, -1), labels.shape[1:]
                constant = constant.flatten(0, -2).mean(0).view(-1, *[1] * (labels.ndim - 1 - at))
            case _:
                constant, shape = known_mean(labels), labels.shape[1:]
        # Answers may be much larger than labels: a part at a time.
        split = labels.split(64)  # type: ignore[no-untyped-call]
        asked = replace(self, shares=True)
        parts = [asked._of_labels(constant.expand(len(each), *shape), each) for each in split]
        return joined(parts, torch.arange(len(labels)), self.unit)

    def _own(self, output: Any, batch: Any, count: int) -> Predictions:
        losses = total(output) if self.score is None else self.score(output, batch)
        if isinstance(losses, float | int):
            losses = torch.tensor(float(losses))
        if not isinstance(losses, Tensor) or losses.numel() not in (1, count):
            raise UsageError(
                f"score() gives {described(losses)} for {count} examples",
                do="return a tensor with a loss for each example, or one for all of them",
            )
        shared = count if losses.numel() == 1 else 1
        losses = losses.detach().to("cpu", torch.float64).flatten().expand(count)
        found = answer(output)
        answers = None
        if found is not None and found.ndim and len(found) == count and self.score is not None:
            answers = some(found.detach().to("cpu", torch.float64))
        return Predictions(losses, None, answers, shared)


def task_of(
    output: Any, batch: Any, labels: Path | None, images: Collected, shares: Callable[[int], bool]
) -> Task:
    """The task, from what is there: the output for a batch of the images. `shares`: whether outputs
    at this place are from 0 to 1, in more batches than this. Raises UsageError."""
    given = None if labels is None else part(batch, labels)
    place, doubtful = 0, False
    if isinstance(given, Tensor):
        known = [each for path, each in images.tensors() if path == labels]
        if not known:
            said = f"the labels are {described(given)}, without one for each row of a batch"
            raise UsageError(said, do=f"an example is a row. Of graphs' nodes: {GRAPHS}")
        place, doubtful = place_of(output, given, known)
    found = answer(output, place)
    # Of heads that no label chooses from, losses in training say more.
    if found is None or not found.ndim or (labels is None and heads(output) is not output):
        raise UsageError(f"the model gives {described(output)}", do=CODE)
    if labels is None:
        return Task("outputs")
    if not isinstance(given, Tensor):
        raise UsageError(f"the labels are {described(given)}", do=CODE)
    if given.is_complex() or not found.is_floating_point() or len(found) != len(given):
        raise _not_understood(found, given)
    column = images.column(labels)
    every = given.cpu() if column is None else column
    task = _of_answer(found, given, labels, every, lambda: shares(place))
    return replace(task, place=place, doubtful=doubtful)


def _of_answer(
    found: Tensor, given: Tensor, labels: Path, every: Tensor, shares: Callable[[], bool]
) -> Task:
    at = classes_at(found, given)
    classes = 0 if at is None else found.shape[at]
    if every.is_floating_point() and not 0 < classes_in([every], classes) <= classes:
        at, classes = None, 0
    numbers = at is not None or not every.is_floating_point()
    counts = counted(every, classes) if numbers else ~every.isnan()
    if not counts.any():
        values = " and ".join(sorted({*map(str, every.flatten().tolist())}))
        said = f"all labels are {values}, which count for nothing"
        raise UsageError(said, do="give a loader whose batches have labels")
    kinds = of_two(every)
    if at is not None:
        if kinds == (0, 255) and not counts.all():
            said = "the labels are 0 and 255, and 255 counts for nothing among classes"
            raise UsageError(said, do="give class numbers: a mask that is an image, divided by 255")
        return Task("classes", labels, classes=classes)
    if found.numel() != given.numel():
        raise _not_understood(found, given)
    if kinds is None and bool(((every == 0) | (every == 1) | ~counts).all()):
        kinds = 0, 1
    sigmoid = kinds is not None and shares()
    # Of one for each class, the shares do not sum to one.
    each = sigmoid and shares_at(found) is None
    if found.shape == given.shape and shares_at(every) is not None and not each:
        return Task("soft", labels)
    if kinds:
        return Task("binary", labels, two=kinds, shares=sigmoid)
    rows = every.reshape(len(every), -1)
    number = (~rows.isnan()).sum(0)
    away = (rows - known_mean(rows)).square_().nansum(0) / (number - 1)
    return Task("values", labels, scale=away[number > 1].mean().nan_to_num().item() or 1.0)


def _not_understood(found: Tensor, given: Tensor) -> UsageError:
    return UsageError(
        f"the model gives outputs of shape {shape(found)} for {str(given.dtype)[6:]} labels of "
        f"shape {shape(given)}",
        do=ENLARGED if found.ndim == per_place(given, found).ndim + 1 == 4 else CODE,
    )


def _of_classes(found: Tensor, labels: Tensor) -> Predictions:
    at = classes_at(found, labels)
    if at is None:
        raise _not_understood(found, labels)
    found = found.movedim(at, 1)
    labels = per_place(labels, found).long()
    counts = counted(labels, found.shape[1])
    valid = labels[counts]
    least, most = (int(valid.min()), int(valid.max())) if len(valid) else (0, 0)
    if not 0 <= least <= most < found.shape[1]:
        raise UsageError(
            f"the labels run from {least} to {most}, and the model has {found.shape[1]} outputs",
            do=f"expected labels from 0 to {found.shape[1] - 1}, and -100 where there is none",
        )
    losses = F.nll_loss(log_shares(found), labels.where(counts, -100), reduction="none")
    predicted = found.argmax(1)
    return over_places(losses, predicted == labels, counts, predicted)
