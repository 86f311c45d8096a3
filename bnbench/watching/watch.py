"""`bnbench.watch`: what a user's own training loop does to its normalization layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from bnbench.catalogue import FINDINGS
from bnbench.diagnosis.foreign import Network, first_tensor, in_a_sentence, plain
from bnbench.diagnosis.result import RECALIBRATE
from bnbench.diagnosis.route import Forward
from bnbench.diagnosis.task import Score
from bnbench.errors import BnbenchError, UsageError
from bnbench.events import Fact, Found, Moment, Split
from bnbench.guard import ForeignCode, foreign_code
from bnbench.running_statistics import has_statistics
from bnbench.sinks import OptionalSink, Sink
from bnbench.sinks.metrics import MetricsSink
from bnbench.store import Appender
from bnbench.watching import records
from bnbench.watching.calls import Noted, Passing
from bnbench.watching.hooks import Root
from bnbench.watching.ranks import ranks_of
from bnbench.watching.readings import Evaluate, Readings, harm, not_finite
from bnbench.watching.stack import warn
from bnbench.watching.steps import Steps

IMAGES = 512
"""Of each loader: an accuracy of 90 % has a standard error of 1.3 points; its difference between
two kinds of statistics, on the same images, has far less."""

CHECKS = 20
"""Looks for statistics that are not finite from one reading to the next: each waits for the
device."""

IN_PYTHON = "recalibrate (torch.optim.swa_utils.update_bn)"

SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


class Watch:
    """Watches the normalization layers of a model in a training loop of the user's own.

        with bnbench.watch(model, val=val_loader, log=writer):
            train()

    Every `every` optimizer steps, and at the end, the model is measured on `images` examples of
    each loader, which are kept: loss and accuracy under running, batch and population statistics,
    the gap between the first two, and each layer's running error (the probe `running_error`).
    Population statistics are those of `train`, the training loader; without it, of `val`. Batches
    are as large as in training. `val`, `train`, `forward` and `score` are as in `bnbench.diagnose`;
    or `val` is a function of the model that gives a number, or numbers by name.

    In between, a warning says, once for each layer, what `bnbench explain findings` explains;
    at the end, if running statistics cost more than 5 points.

    `log`: a SummaryWriter, or a function of tag, value and step. `folder`: where the run gets a
    folder of its own, for `metrics.jsonl`, and a row in `results.jsonl`, with `setup` and `seed`,
    for `bnbench verdict`; None: nowhere.

    Steps are those of any torch optimizer that has parameters of this model; where there is none,
    changes of its weights. What is trained stays the same, bit for bit; hooks of the user's see the
    passes of readings, too. Of several processes, rank 0 measures and logs. What cannot be watched
    is refused on entering, with UsageError, DataError or StorageError; later, what fails is a
    warning.

    `step`: the last one. `findings`: what was said. `path`: the run's folder.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        val: Iterable[Any] | Evaluate | None = None,
        train: Iterable[Any] | None = None,
        every: int = 500,
        log: Any = None,
        folder: str | Path | None = "runs/watch",
        setup: str = "",
        seed: int | None = None,
        images: int = IMAGES,
        forward: Forward | None = None,
        score: Score | None = None,
        begun_at: int = 0,
    ) -> None:
        """`begun_at`: steps that were made before. Raises UsageError."""
        if every < 1 or images < 2:
            raise UsageError(
                "every is 1 or more, images 2 or more", do=f"500 and {IMAGES} are usual"
            )
        self.model, self.every = model, every
        self.network = Network(_unwrapped(model), ForeignCode())
        self.step, self.findings = begun_at, list[Found]()
        self.path: Path | None = None
        self._folder = None if folder is None else Path(folder)
        self._write = None if log is None else records.writes(log)
        self._row = {"setup": setup or type(self.network.network).__name__, "seed": seed}
        self._evaluate = None if hasattr(val, "__iter__") or not callable(val) else val
        given: dict[Split, Any] = {"train": train, "val": None if self._evaluate else val}
        self._loaders = {split: each for split, each in given.items() if each is not None}
        for split, each in self._loaders.items():
            if not (hasattr(each, "__iter__") or hasattr(each, "__getitem__")):
                or_else = ", or a function of the model that gives a number" * (split == "val")
                raise UsageError(
                    f"{split} is {type(each).__name__}", do=f"give a loader or a dataset{or_else}"
                )
        self._how: dict[str, Any] = {"images": images, "forward": forward, "score": score}
        self._begun_at = self._read_at = begun_at
        self._finite = True
        self._said: set[tuple[str, str]] = set()
        self._last: Sequence[Fact] = ()

    def __enter__(self) -> Self:
        norms = self.network.norms
        self._tracking = {name: each for name, each in norms.items() if has_statistics(each)}
        self._passing = Passing(self.model, self.network, norms)
        self._passing.step = self._begun_at
        self._modes = self._passing.modes()
        self._steps, self._ranks = Steps(self.network.network), ranks_of(self._tracking)
        self._leads = self._ranks is None or self._ranks.rank == 0
        self._readings: Readings | None = None
        if self._leads and (self._loaders or self._evaluate):
            self._readings = Readings(self.network, self._loaders, self._evaluate, **self._how)
        self._sinks = list(self._opened()) if self._leads else []
        self._hooks, self._calls = ExitStack(), ExitStack()
        self._passing.begin()
        self._hooks.callback(self._passing.end)
        if self._ranks is not None:
            self._passing.before_pass = self._ranks.post
        Root(self.model, self._passed).put(self._calls)
        self._hooks.push(self._calls)
        self._hooks.callback(register_optimizer_step_post_hook(self._stepped).remove)
        self._begun, self._paused = perf_counter(), 0.0
        return self

    def _opened(self) -> Iterator[Sink]:
        if self._folder is not None:
            setup, seed = self._row.values()
            self.path = records.new_folder(self._folder, str(setup), seed)
            file = Appender(self.path / "metrics.jsonl")
            yield OptionalSink(partial(MetricsSink, file), warn, "metrics.jsonl")
        if self._write is not None:
            yield OptionalSink(partial(records.LogSink, self._write), warn, "log=")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._hooks.close()
        if kind is None:
            self._advance_by_hand(ended=True)
            self._passing.ended()
            if self.step == self._begun_at and any(e.backward >= 0 for e in self._passing.passes):
                warn(
                    "bnbench.watch: no step was seen, and nothing is measured: no torch optimizer "
                    f"has parameters of this model, and {self._steps.weight} is what it was. Is "
                    "this the module that is trained?"
                )
        self._say()
        self._compare_ranks()
        if kind is None:
            self.read()
            if (said := harm(self._last)) is not None:
                warn(f"bnbench.watch, step {self.step:,}: {said}")
        for sink in self._sinks:
            sink.close()
        if self._leads and self._folder is not None:
            stopped = "interrupted" if kind is KeyboardInterrupt else "failed"
            row = self._row | {"state": "completed" if kind is None else stopped}
            row |= {"steps": self.step, "examples": self._passing.examples}
            try:
                records.add_row(self._folder, row, self._last)
            except BnbenchError as problem:
                warn(f"warning: the run has no row in {records.RESULTS}: {problem}")

    # --- steps --------------------------------------------------------------------------------

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        """After a step of any optimizer."""
        if torch.compiler.is_compiling():
            return
        ours = self._steps.is_ours(optimizer)
        led = self._passing.optimized(id(optimizer), ours)
        if not ours:
            return
        if not self._passing.blind:
            self._calls.close()  # which were looked at to tell what counts as a step
        made = self._steps.made_by(optimizer, led)
        if made:
            self._advance(made, self._passing.modes())

    def _passed(self, args: Any) -> None:
        """Before a pass with gradients through the whole network."""
        passing = self._passing
        if passing.blind and self.step > self._begun_at and self.network.network.training:
            x = first_tensor(args)  # compiled, scripted, or without layers
            if x is not None and x.ndim:
                passing.look(x)
        self._advance_by_hand()
        self._modes = passing.modes()

    def _advance_by_hand(self, *, ended: bool = False) -> None:
        known = self._steps.by_hand
        made = self._steps.made_by_hand(ended=ended)
        if self._steps.by_hand and not known:
            warn(
                "bnbench.watch: the weights change, but no torch optimizer with parameters of this "
                "model has made a step: a step is each call of the model that finds "
                f"{self._steps.weight} changed"
            )
        if made:
            self._passing.optimized(0, ours=True)  # no optimizer's id
            self._advance(made, self._modes)

    def _advance(self, made: int, modes: list[bool]) -> None:
        """So many more steps have been made, the last one with layers in these modes."""
        passing, before = self._passing, self.step - self._begun_at
        self.step += made
        passing.stepped(self.step, modes)
        self._say()
        number = before + made
        due = number // self.every > before // self.every
        self._compare_ranks()
        if self._ranks is not None and (due or not before):
            self._ranks.due(number)
        check = max(self.every // CHECKS, 1)
        if due:
            self.read()
        elif number // check > before // check:
            self._look_for_infinity()

    # --- what is said ---------------------------------------------------------------------------

    def _say(self) -> None:
        for name, noted in self._passing.said():
            self._tell(name, noted)

    def _compare_ranks(self) -> None:
        if self._ranks is not None and (found := self._ranks.differ()) is not None:
            layers, evidence = found
            self._tell("ranks-differ", Noted(layers, self.step, evidence))

    def _look_for_infinity(self) -> None:
        if not (self._finite and self._tracking):
            return
        found = not_finite(self.network, self._tracking)
        if found is not None:
            self._finite = False
            self._tell(found.name, Noted(found.layers, self.step, found.evidence), found.do)

    def _tell(self, name: str, noted: Noted, do: str = "") -> None:
        """`do`: instead of what the catalogue says."""
        new = tuple(each for each in noted.layers if (name, each) not in self._said)
        if not new:
            return
        self._said |= {(name, each) for each in new}
        found = Found(name=name, layers=new, evidence=noted.evidence)
        self.findings.append(found)
        self._take([found], noted.step)
        rank = "" if self._ranks is None else f", rank {self._ranks.rank}"
        do = (do or FINDINGS[name].do).replace(RECALIBRATE, IN_PYTHON)
        warn(
            f"bnbench.watch, step {noted.step:,}{rank}: {name}: {noted.evidence}\n"
            f"→ {do} (bnbench explain findings {name})",
            noted.place,
        )

    # --- readings -------------------------------------------------------------------------------

    def read(self) -> None:
        """Measure the model, unless it was at this step. What fails is a warning."""
        if self._read_at == self.step:
            return
        self._read_at, begun = self.step, perf_counter()
        self._look_for_infinity()
        if self._readings is None:
            return
        passing = self._passing
        try:
            with foreign_code(in_a_sentence("the model", UsageError)):
                facts = self._readings.facts(passing.batch_size, passing.autocast)
        except BnbenchError as problem:
            self._readings = None
            warn(
                f"bnbench.watch, step {self.step:,}: {problem.what}: the model is measured no more"
            )
            return
        finally:
            self._paused += perf_counter() - begun
        self._last = facts
        self._take(facts, self.step)

    def _take(self, facts: Sequence[Fact], step: int) -> None:
        moment = Moment(
            step=step,
            examples=self._passing.examples,
            train_seconds=perf_counter() - self._begun - self._paused,
            facts=tuple(facts),
        )
        for sink in self._sinks:
            sink.take(moment)


watch = Watch  # bnbench.watch(model)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The user's network inside of what wraps it. Raises UsageError."""
    inner: Any = model
    while True:
        if isinstance(inner, DataParallel | DistributedDataParallel):
            inner = inner.module
        elif hasattr(inner, "_orig_mod"):
            inner = inner._orig_mod
        else:
            break
    network = plain(inner)
    for module in network.modules():
        if SHARDED & {each.__name__ for each in type(module).__mro__}:
            raise UsageError(
                "the model's parameters are sharded (FSDP): rank 0 alone cannot measure it",
                do="train it with DistributedDataParallel, or watch it without FSDP on one process",
            )
    return network
