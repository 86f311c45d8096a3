"""Measures a network: the same examples under every kind of statistics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

import torch
from torch import Tensor, nn

from bnbench.diagnosis.answers import answer, in_unit, total
from bnbench.diagnosis.batches import Collected
from bnbench.diagnosis.evidence import Evidence, InBatches, Measured, Modes, Target
from bnbench.diagnosis.foreign import Network, in_a_sentence
from bnbench.diagnosis.modes import averages, drops, in_training, losses, moved
from bnbench.diagnosis.predictions import Predictions, joined
from bnbench.diagnosis.route import Route, labels_in, route
from bnbench.diagnosis.survey import Pools, survey
from bnbench.diagnosis.task import CODE, Score, Task, task_of
from bnbench.errors import BnbenchError, UsageError
from bnbench.probes.interception import tensors_in, tensors_restored
from bnbench.probes.statistics import Autocast
from bnbench.running_statistics import STATISTICS

WHOLE = sys.maxsize
"""A forward pass is one batch, whatever the first dimension of a layer's input counts: a network
may fold time or crops into it."""

PASS = 64
"""Images in a forward pass, at least, where batches make no difference: passes of 2 would take most
of their time to start."""

REFERENCE = 128
"""A batch size that no longer matters: at 32 and above BatchNorm's error is flat (Wu & He 2018,
https://arxiv.org/abs/1803.08494, table 2)."""

BLAMED = 256
"""Images on which layers are ranked, at most."""

RANKED = 12
"""Layers that are ranked one by one; of more, the worst quarter is looked for first."""

RANKING = 4
"""Passes over all images whose time ranking may take, about."""

Tell = Callable[[float], object]
"""Is told how far it is, from 0 to 1."""


def measure(
    passes: Passes,
    target: Target,
    train: Collected,
    evaluation: Collected | None,
    batch_sizes: Sequence[int],
    *,
    again: bool,
    tell: Tell,
) -> Evidence:
    """All of it, in eval mode. `batch_sizes`: the training loader's first. Raises UsageError."""
    compared = passes.task.kind == "outputs"  # with those under batch statistics
    over_train = 2 + 2 * len(batch_sizes) + again + passes.by_call + RANKING + compared
    over_train += target.live is not None
    over_eval = (3 + passes.by_call + compared) * len(evaluation) if evaluation else 0
    passes.tells(tell, over_train * len(train) + over_eval)
    modes = passes.modes(train)
    found = passes.measured(train, batch_sizes)
    other = None
    if evaluation is not None:
        other = passes.measured(evaluation, batch_sizes[:1], found.own.pools)
    batch = passes.as_they_come(train)
    flipped = passes.shuffled(train, batch_sizes[0], again=1)[0] if again else None
    return Evidence(
        target=target,
        task=passes.task,
        train=found,
        eval=other,
        batch=batch,
        again=flipped,
        blame=passes.blame(train),
        survey=passes.survey,
        modes=modes,
        running=passes.running,
        of_live=passes.of_live(train, target.live),
    )


class Passes:
    """Passes examples through a network under each kind of statistics. The network is in eval mode
    when this is made, and when it is used.

    `chunked`: one pass may hold many batches, each with statistics of its own. Not where a layer
    keeps none, and acts by itself, nor where the network folds time or crops into the first
    dimension: there a pass is one batch. Nor where examples differ in shape, or have no loss of
    their own.
    """

    def __init__(
        self, model: Network, autocast: Autocast, seed: int, images: Collected, score: Score | None
    ) -> None:
        self.model, self.autocast, self.seed = model, autocast, seed
        self.references: dict[str, Tensor] = {}
        self.scaled_by = images.loader
        self.tell: Tell = lambda _: None
        self.whole, self.done = 1, 0
        first = images.as_they_come()[0]
        self.task = self._task(images, first, score)

        def run() -> None:
            with autocast():
                model(images.batch(first))

        self.survey = survey(model, model.network, len(first), run)
        self.shared = self.task.kind in ("own", "training")
        self.chunked = model.tracking and self.survey.chunked and images.alike and not self.shared
        self.by_call = any(number > 1 for number in self.survey.calls.values())

    def _task(self, images: Collected, first: Tensor, score: Score | None) -> Task:
        """What is asked of the network, seen in one batch; its route is set where there is none."""
        model, batch = self.model, images.batch(first)
        way = model.route = model.route or route(model.network, batch)
        labels = way.labels if isinstance(way, Route) else labels_in(batch)
        try:
            with self.autocast():
                output = model(batch)
            if score is not None:
                return Task("own", score=score)
            return task_of(output, batch, labels, images, lambda at: self._shares(images, at))
        except UsageError:
            if not isinstance(way, Route):
                raise
            model.route = losses
            try:
                with self.autocast():
                    found = total(model(images.batch(first)))
            except BnbenchError:
                found = None
            if found is None:
                raise
            return Task("training")

    def _shares(self, images: Collected, place: int) -> bool:
        """Whether outputs are from 0 to 1, of so many examples that it is no chance."""
        seen = 0
        for positions in images.as_they_come():
            with self.autocast():
                found = answer(self.model(images.batch(positions)), place)
            if found is None or not in_unit(found):
                return False
            seen += found.numel()
            if seen >= PASS:
                break
        return True

    def tells(self, tell: Tell, images: int) -> None:
        """How far it is, of so many images to be passed in all."""
        self.tell, self.whole, self.done = tell, images, 0

    def measured(
        self, images: Collected, batch_sizes: Sequence[int], given: Pools | None = None
    ) -> Measured:
        """`given`: the training images' statistics; None: these are the training images."""
        if self.task.kind == "outputs":
            self._refer(images, batch_sizes[0])
        running, found = self.running(images), {}
        for size in batch_sizes:
            shuffled, pools = self.shuffled(images, size)
            by_call = None
            with self.survey.given(given or pools):
                population = self.running(images)
            if self.by_call and size == batch_sizes[0]:
                with self.survey.given(given or pools, by_call=True):
                    by_call = self.running(images)
            found[size] = InBatches(shuffled, population, by_call, pools)
        return Measured(images, running, found)

    def _refer(self, images: Collected, size: int) -> None:
        """Outputs under batch statistics, which those under others are compared with."""
        found = self.shuffled(images, size, again=2)[0].answers
        if found is None:
            raise UsageError(
                "the model's outputs differ in shape, and there are no labels", do=CODE
            )
        scale = max(found.var(0, correction=0).mean().item(), 1e-24)
        if images.loader == self.scaled_by:
            self.task = replace(self.task, scale=scale)
        else:
            scale = self.task.scale
        self.references[images.loader] = found / scale**0.5

    def running(self, images: Collected) -> Predictions:
        """Under the network's running statistics, as in eval mode."""
        # Layers without them depend on the batch: take the loader's size.
        size = max(images.batch_size, PASS if self.model.tracking and not self.shared else 0)
        return self._predictions(images, images.cut(torch.arange(len(images)), size))

    def as_they_come(self, images: Collected) -> Predictions:
        """Under the statistics of the loader's batches."""
        own, sizes = images.batch_size, images.sizes
        even = set(sizes[:-1]) <= {own} and sizes[-1] <= own
        if self.chunked and even:
            with self.survey.batch(own):
                chunks = images.cut(torch.arange(len(images)), self._pass_size(own), own)
                return self._predictions(images, chunks)
        with self.survey.batch(WHOLE):
            return self._predictions(images, self._with_statistics(images))

    def shuffled(
        self, images: Collected, size: int, *, again: int = 0
    ) -> tuple[Predictions, Pools]:
        """Under batch statistics in random batches of this size, and these statistics."""
        passes = self._drawn(images, size, len(images), again)
        with self.survey.batch(self._shared_by(size)) as pools:
            found = self._predictions(images, passes)
        return found, {name: pool.of_calls() for name, pool in pools.items()}

    def modes(self, images: Collected) -> Modes:
        """What else than statistics differs between the modes, on some of the images."""
        size, network = images.batch_size, self.model.network
        passes = self._drawn(images, size, BLAMED)
        before = {name: each.clone() for name, each in network.named_buffers()}
        buffers = list(tensors_in(network.modules(), "_buffers"))

        def found(seed: int) -> tuple[Predictions, Pools]:
            torch.manual_seed(seed)
            with tensors_restored(buffers), self.survey.batch(self._shared_by(size)) as pools:
                answered = self._predictions(images, passes)
                changed[:] = moved(network, before)
                return answered, pools

        changed: list[str] = []
        with tensors_restored(buffers):
            self._predictions(images, passes)
            in_eval = tuple(n for n in moved(network, before) if n.endswith(STATISTICS))
        evaluation, still = found(0)
        others = {*changed}
        training, random_too, by_function = None, False, False
        if self.task.kind != "training":
            with (
                suppress(UsageError, ValueError, AssertionError),
                in_training(network, dropout=False) as mode,
            ):
                one, still = found(0)
                by_function = mode is not None and mode.by_function
                by_function |= averages({*changed} - others)
                other, _ = found(1)
                random_too = not torch.allclose(one.losses, other.losses, equal_nan=True)
                training = None if random_too else one
        noisy = None
        if random_too or any(map(drops, network.modules())):
            with suppress(UsageError), in_training(network, dropout=True):
                _, noisy = found(0)
        return Modes(evaluation, training, noisy, still, in_eval, by_function)

    def of_live(self, images: Collected, live: nn.Module | None) -> Pools | None:
        """The layers' statistics with the live model's weights, where there is one; None also where
        its weights are the same. Raises UsageError."""
        if live is None:
            return None
        own, others = list(self.model.parameters()), list(live.parameters())
        if [each.shape for each in own] != [each.shape for each in others]:
            raise UsageError(
                "live has other parameters than the model",
                do="give the model that was trained, of which this one's weights are an average",
            )
        if all(map(torch.equal, own, others)):
            return None
        with tensors_restored(tensors_in(self.model.modules(), "_parameters")):
            for parameter, other in zip(own, others, strict=True):
                parameter.copy_(other)
            return self.shuffled(images, images.batch_size)[1]

    def blame(self, images: Collected) -> dict[str, float]:
        """Which layer's running statistics cost how much, in nats, as the probe `gap_by_layer`.

        Of many layers the worst quarter, in the order of the pass, is halved further.
        """
        layers = [name for name in self.survey.calls if name in self.survey.of("exchanged")]
        if not layers:
            return {}
        size, number = images.batch_size, len(layers)
        rounds = 1
        while number > RANKED:
            rounds, number = rounds + 4, -(-number // 4)
        most = min(BLAMED, RANKING * len(images) // (rounds + number))
        passes = self._drawn(images, size, most)

        def loss(chosen: Sequence[str]) -> float:
            only = {name: self.survey.layers[name] for name in chosen}
            with self.survey.batch(self._shared_by(size), only):
                found = self._predictions(images, passes)
            return found.loss if found.finite else inf

        running = loss([])
        while len(layers) > RANKED:
            share = -(-len(layers) // 4)
            parts = [layers[k : k + share] for k in range(0, len(layers), share)]
            layers = min(parts, key=loss)
        return {name: running - loss([name]) for name in layers}

    def _drawn(self, images: Collected, size: int, most: int, again: int = 0) -> list[Tensor]:
        """Passes of random batches of this size, which hold `most` of the examples, about."""
        random = torch.Generator().manual_seed(self.seed + again)
        order = torch.randperm(len(images), generator=random)
        if most < len(images):
            order = order[: max(most // size, 1) * size]
        return images.cut(order, self._pass_size(size), size)

    def _shared_by(self, size: int) -> int:
        """How many examples share statistics, as layers count them, in batches of this size."""
        return size if self.chunked else WHOLE

    def _pass_size(self, size: int) -> int:
        """Examples in a forward pass under the statistics of `size` of them: whole batches."""
        return max(PASS // size, 1) * size if self.chunked else size

    def _with_statistics(self, images: Collected) -> list[Tensor]:
        """The loader's batches; a single example among them, without a variance, joins those before
        it, or, the first one, those after."""
        batches = images.as_they_come()
        if not images.alike or max(images.sizes) == 1:
            return batches
        found = batches[:1]
        for each in batches[1:]:
            alone = 1 in (len(found[-1]), len(each))
            found.append(torch.cat([found.pop(), each]) if alone else each)
        return found

    def _predictions(self, images: Collected, chunks: Sequence[Tensor]) -> Predictions:
        reference, parts = self.references.get(images.loader), []
        for positions in chunks:
            batch = images.batch(positions)
            with self.autocast():
                output = self.model(batch)
            known = None if reference is None else reference[positions]
            try:
                with self.model.code.entered(in_a_sentence("score()", UsageError)):
                    parts.append(self.task.judged(output, batch, len(positions), known))
            except UsageError as error:
                raise UsageError(f"{images.loader} loader: {error.what}", do=error.do) from error
            self.done += len(positions)
            self.tell(min(self.done / self.whole, 1.0))
        return joined(parts, torch.cat(list(chunks)), self.task.unit)
