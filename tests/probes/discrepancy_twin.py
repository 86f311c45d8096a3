"""What `Discrepancy.measure` finds, by torch's own training mode and plain loops: image by image,
chunk by chunk, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor, nn

from bnbench.events import Evaluation, Gap, Measurement, Split
from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.probes.statistics import Sample

CLASSES = 3

Norm = Callable[[int], nn.Module]


def network(make_norm: Norm) -> nn.Sequential:
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        make_norm(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        make_norm(4),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, CLASSES),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=random) * 0.3)
    return model


@dataclass
class Pictures:
    """Images and labels of which to make samples."""

    split: Split
    x: Tensor
    y: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.y), size):
            yield self.x[start : start + size], self.y[start : start + size]

    def sample(self) -> Sample:
        return Sample(split=self.split, images=len(self.y), batches=self.batches)

    def first(self, n: int) -> Pictures:
        return Pictures(self.split, self.x[:n], self.y[:n])


def pictures(split: Split, n: int, seed: int = 0) -> Pictures:
    random = torch.Generator().manual_seed(seed)
    # Neighbours alike, so that chunks differ from each other and the others in a batch matter.
    x = torch.randn(n, 1, 6, 6, generator=random) + torch.linspace(-2, 2, n).view(n, 1, 1, 1)
    return Pictures(split, x, torch.randint(CLASSES, (n,), generator=random))


def chunk_sizes(n: int, size: int) -> list[int]:
    """Whole chunks; what is left over joins the last one."""
    sizes = [size] * (n // size)
    rest = n - sum(sizes)
    if rest and sizes:
        sizes[-1] += rest
    elif rest:
        sizes = [rest]
    return sizes


def in_training(model: nn.Module, x: Tensor, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in training mode, chunk by chunk, dropout off; and what each norm was given."""
    twin = copy.deepcopy(model).train()
    given: dict[str, list[Tensor]] = {}
    for name, module in twin.named_modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            given[name] = []
            module.register_forward_pre_hook(
                lambda _, args, kept=given[name]: kept.append(args[0].double())
            )
    start, logits = 0, []
    with torch.no_grad():
        for chunk in chunk_sizes(len(x), size):
            for module in twin.modules():
                if isinstance(module, GhostBatchNorm):
                    module.batch_size = (
                        chunk  # a chunk that took in a short tail is one all the same
                    )
            logits.append(twin(x[start : start + chunk]))
            start += chunk
    return torch.cat(logits), {name: torch.cat(parts) for name, parts in given.items()}


def one_by_one(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        twin = copy.deepcopy(model).eval()
        return torch.cat([twin(image[None]) for image in x])


def with_population(model: nn.Module, given: dict[str, Tensor]) -> nn.Module:
    twin = copy.deepcopy(model)
    for name, values in given.items():
        by_channel = values.transpose(0, 1).flatten(1)
        layer = twin.get_submodule(name)
        layer.get_buffer("running_mean").copy_(by_channel.mean(1))
        layer.get_buffer("running_var").copy_(by_channel.var(1, correction=0))
    return twin


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [exp(value - top) for value in logits]
    return [weight / sum(weights) for weight in weights]


def scores(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    losses, hits = 0.0, 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        losses -= log(softmax(row)[label])
        hits += row.index(max(row)) == label
    return losses / len(labels), hits / len(labels)


def differences(running: Tensor, batch: Tensor) -> tuple[float, float]:
    """Share of other answers, and KL(p_batch ‖ p_running)."""
    other, kl = 0, 0.0
    for a, b in zip(running.tolist(), batch.tolist(), strict=True):
        other += a.index(max(a)) != b.index(max(b))
        kl += sum(q * log(q / p) for p, q in zip(softmax(a), softmax(b), strict=True))
    return other / len(running), kl / len(running)


def twin_measure(
    model: nn.Module, population: Pictures, samples: list[Pictures], size: int
) -> dict[tuple[str, str], dict[str, float]]:
    _, given = in_training(model, population.x, size)
    precise = with_population(model, given)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for sample in samples:
        # Images of the training split share batches with their neighbours in the population.
        whole = population.x if sample.split == population.split else sample.x
        logits = {
            "running": one_by_one(model, sample.x),
            "batch": in_training(model, whole, size)[0][: len(sample.y)],
            "population": one_by_one(precise, sample.x),
        }
        for stats, values in logits.items():
            loss, accuracy = scores(values, sample.y)
            found[sample.split, stats] = {"loss": loss, "accuracy": accuracy}
        running, batch = found[sample.split, "running"], found[sample.split, "batch"]
        disagreement, kl = differences(logits["running"], logits["batch"])
        found[sample.split, "gap"] = {
            "loss": running["loss"] - batch["loss"],
            "accuracy": running["accuracy"] - batch["accuracy"],
            "disagreement": disagreement,
            "kl": kl,
        }
    return found


def by_name(facts: list[Measurement]) -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for fact in facts:
        if isinstance(fact, Evaluation):
            found[fact.split, fact.stats] = {"loss": fact.loss, "accuracy": fact.accuracy}
        elif isinstance(fact, Gap):
            found[fact.split, "gap"] = {
                "loss": fact.loss,
                "accuracy": fact.accuracy,
                "disagreement": fact.disagreement,
                "kl": fact.kl,
            }
    assert len(found) == len(facts)
    return found


NORMS: dict[str, Norm] = {
    "batch": BatchNorm,
    "ghost": lambda channels: GhostBatchNorm(channels, batch_size=4),
    "none": lambda _: nn.Identity(),
    "group": lambda channels: GroupNorm(channels, groups=2),
}
