"""A network in training, measured between two steps: what eval mode would make of it now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from math import nan
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from bnbench.diagnosis.batches import collect
from bnbench.diagnosis.evidence import Measured
from bnbench.diagnosis.finite import non_finite
from bnbench.diagnosis.foreign import Network, in_a_sentence, uncompiled, untouched
from bnbench.diagnosis.passes import WHOLE, Passes
from bnbench.diagnosis.predictions import Predictions
from bnbench.diagnosis.result import Finding
from bnbench.diagnosis.route import Forward
from bnbench.diagnosis.task import Score as Scoring
from bnbench.errors import UsageError
from bnbench.events import Evaluation, Fact, Gap, Split
from bnbench.probes import readings
from bnbench.probes.pooled import PooledStatistics
from bnbench.probes.running_error import errors_of
from bnbench.probes.statistics import Autocast, batch_statistics, evaluating
from bnbench.running_statistics import has_statistics, tables

Evaluate: TypeAlias = Callable[[nn.Module], Any]
"""The user's own evaluation: evaluate(model) → a number, or numbers by name."""

HARM = 0.05
"""Share of right answers that running statistics may cost without a word; of few examples more: two
standard errors of a share."""


class Readings:
    """Measures a network on the same examples each time, kept from the loaders; the first loader's
    in batches as in training are the population."""

    def __init__(
        self,
        network: Network,
        loaders: Mapping[Split, Iterable[Any]],
        evaluate: Evaluate | None,
        *,
        images: int,
        forward: Forward | None,
        score: Scoring | None,
    ) -> None:
        """Passes one batch, so that what cannot be measured is said at once. Raises UsageError,
        DataError."""
        self.network, self.evaluate = network, evaluate
        network.route = forward
        device = next((each.device for each in network.parameters()), torch.device("cpu"))
        with untouched(network, loaders.values()), uncompiled():
            self.images = {
                split: collect(
                    source, "train" if split == "train" else "val", images, device, network.code
                )
                for split, source in loaders.items()
            }
            self.passes: Passes | None = None
            if self.images:
                first = next(iter(self.images.values()))
                with evaluating(network):
                    self.passes = Passes(network, nullcontext, 0, first, score)

    def facts(self, batch_size: int, autocast: Autocast) -> list[Fact]:
        """Evaluations and gap of each loader's examples; the error of each layer's running
        statistics. `batch_size`: of training; 0: that of the loader. Raises UsageError."""
        found: list[Fact] = []
        pools: dict[str, PooledStatistics] = {}
        with untouched(self.network, ()), uncompiled(), evaluating(self.network):
            if self.passes is not None:
                self.passes.autocast = autocast
                for split, images in self.images.items():
                    size = batch_size if self.passes.survey.chunked else 0
                    size = min(max(size or images.batch_size, 2), len(images))
                    measured = self.passes.measured(images, [size], pools or None)
                    pools = pools or dict(measured.own.pools)
                    found += _facts(split, measured)
            if self.evaluate is not None:
                facts, own = self._evaluated(self.evaluate, autocast)
                found, pools = found + facts, pools or own
        seen = {
            name: layer
            for name, layer in self.network.norms.items()
            if has_statistics(layer) and name in pools and pools[name].count
        }
        return found + errors_of(seen, pools)

    def _evaluated(
        self, evaluate: Evaluate, autocast: Autocast
    ) -> tuple[list[Fact], dict[str, PooledStatistics]]:
        """What the user's own evaluation gives under running and batch statistics."""
        network = self.network.network

        def values() -> dict[str, float]:
            network.eval()  # whatever the last evaluation has left
            with self.network.code.entered(in_a_sentence("val()", UsageError)), autocast():
                given = evaluate(network)
            return _numbers(given)

        running = values()
        with batch_statistics(network, WHOLE) as pools:
            batch = values()
        gap = {name: value - batch[name] for name, value in running.items() if name in batch}
        return [*readings("val", {"running": running, "batch": batch, "gap": gap})], pools


def harm(facts: Iterable[Fact]) -> str | None:
    """What a reading says where running statistics cost much; None where they do not."""
    found = {(each.split, each.stats): each for each in facts if isinstance(each, Evaluation)}
    for (split, stats), each in found.items():
        right = found[split, "population"].accuracy
        if stats == "running" and right - each.accuracy > max(HARM, each.images**-0.5):
            return (
                f"in eval mode {each.accuracy:.1%} of the {split} examples are right, with "
                f"population statistics {right:.1%}: bnbench.diagnose says why"
            )
    return None


def not_finite(network: Network, layers: Mapping[str, nn.Module]) -> Finding | None:
    """What is not finite among running statistics and weights; looked for where a running
    statistic of these layers is not. Waits for the device once."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for layer in layers.values():
        for _, _, tensor in tables(layer):
            total = tensor.detach().sum(dtype=torch.float32)
            by_device.setdefault(tensor.device, []).append(total)
    if all(bool(torch.stack(each).isfinite().all()) for each in by_device.values()):
        return None
    return non_finite(network, [], [*layers])


def _facts(split: Split, measured: Measured) -> Iterator[Fact]:
    own, images = measured.own, len(measured.images)
    kinds = {"running": measured.running, "batch": own.shuffled, "population": own.population}
    for stats, found in kinds.items():
        yield Evaluation(
            split=split,
            stats=stats,  # type: ignore[arg-type]
            images=images,
            loss=found.loss,
            accuracy=_accuracy(found),
        )
    running, batch = measured.running, own.shuffled
    yield Gap(
        split=split,
        images=images,
        loss=running.loss - batch.loss,
        accuracy=_accuracy(running) - _accuracy(batch),
        disagreement=running.differs(batch),
        kl=nan,  # of losses alone it is not known
    )


def _accuracy(found: Predictions) -> float:
    return nan if found.accuracy is None else found.accuracy


def _numbers(given: Any) -> dict[str, float]:
    """Raises UsageError where there is none."""
    named = given if isinstance(given, Mapping) else {"score": given}
    found = {
        str(name): float(value)
        for name, value in named.items()
        if isinstance(value, float | int) or (isinstance(value, Tensor) and value.numel() == 1)
    }
    if not found:
        raise UsageError(
            f"val() gives {type(given).__name__}",
            do='return a number, or several by name: {"dice": 0.8}',
        )
    return found
