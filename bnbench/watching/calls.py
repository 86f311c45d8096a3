"""What the layers of a network in training are called with, and in which mode: between two
optimizer steps, without waiting for a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bnbench.probes.interception import class_name
from bnbench.probes.statistics import Autocast
from bnbench.running_statistics import has_statistics
from bnbench.watching.hooks import Layer, Pass, Root
from bnbench.watching.stack import Place, in_function, users_line
from bnbench.wording import counted, cut

SAMPLED = 32
"""Steps, of which one has all layers' calls seen. A hook takes 1 µs, and 10 µs where other work has
pushed Python out of the caches."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What is to be said: `step`: at which; `place`: the user's line, None: that which runs."""

    layers: Sequence[str]
    step: int
    evidence: str
    place: Place | None = None


def _acts(module: nn.Module) -> bool:
    """Whether it does something else in train() than in eval(), as FrozenBatchNorm2d does not."""
    return isinstance(module, _NormBase) or "frozen" not in class_name(module).lower()


class Passing:
    """Forward and backward passes since the last optimizer step.

    Every layer is looked at in the first steps, and in one of `SAMPLED` (`all_seen`); in between
    the first layer of a pass, `first`, and `traced`, the first one whose input has a gradient:
    hooks of Python's take time.

    `step`: steps made. `blind`: no layer was seen called. `passes`: through `traced`, in order.
    `calls`: of a layer in a forward pass of the whole network, `within` (0: outside of any).
    `examples`, `batch_size`: rows of the first layer's inputs in all, and the most of them at once.
    `autocast`: what the last pass ran in. `noted`: what there is to say, by name.
    """

    def __init__(self, root: nn.Module, network: nn.Module, norms: Mapping[str, nn.Module]) -> None:
        self.layers = {name: Layer(name, each, self) for name, each in norms.items() if _acts(each)}
        self.step = 0
        self.first: Layer | None = None
        self.traced: Layer | None = None
        self.blind = self.all_seen = True
        self.passes: list[Pass] = []
        self.calls: Counter[tuple[str, int]] = Counter()
        self.within = 0
        self.examples, self.batch_size, self._rows = 0, 0, 0
        self.autocast: Autocast = nullcontext
        self.noted: dict[str, Noted] = {}
        self.before_pass: Callable[[], object] | None = None
        self._root, self._roots = root, 0
        self._weights = [each for each in network.parameters() if each.requires_grad]
        self._hooks = ExitStack()
        self._lone, self._moved = False, set[str]()
        self._made = 0
        self._called: list[str] = []
        self._reused: set[str] = set()
        self._accumulates = False
        self._unsure: dict[str, Noted] = {}
        self._modes: list[bool] = []
        # Optimizers whose steps follow passes, the last one, whether one has made two in turn.
        self._optimizers, self._optimizer, self._steady = set[int](), 0, False
        self._led, self._others = False, False

    # --- hooks ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """See every layer called from now on."""
        self.end()
        self.all_seen, self._lone = True, False
        for layer in self.layers.values():
            layer.put(self._hooks)
        Root(self._root, self._entered).put(self._hooks)
        Root(self._root, self._left).put(self._hooks, after=True)

    def end(self) -> None:
        self._hooks.close()

    def _entered(self, _: Any) -> None:
        self._roots += 1
        self.within = self._roots

    def _left(self, _: Any) -> None:
        self.within = 0

    def look(self, x: Tensor) -> None:
        """At the input of the first layer, or of the network, (N, *), in a pass with gradients."""
        examples, kind = x.shape[0], x.device.type
        self._rows, self._led = examples, True
        self.examples += examples
        if examples == 1 and self.first is not None and self.first.of_batch:
            name = "small-last-batch" if self.batch_size > 1 else "batch-too-small"
            noted = Noted([self.first.name], self.step + 1, EVIDENCE[name])
            self.noted.setdefault(name, noted)
        elif examples > self.batch_size:
            self.batch_size = examples
        self.autocast = nullcontext
        if torch.is_autocast_enabled(kind):
            self.autocast = partial(torch.autocast, kind, torch.get_autocast_dtype(kind))
        if self.before_pass is not None:
            self.before_pass()

    def trace(self, x: Tensor) -> None:
        """Follow the pass that this is in into its backward pass."""
        if self._others:  # what came before led to the step of another network's optimizer
            self._others = False
            self.passes.clear()
        last = self.passes[-1] if self.passes else None
        # Of several passes before one backward pass, all are as the first.
        held = last is not None and (last.held if last.backward < 0 else self._hold())
        traced = Pass(self.step, held)
        self.passes.append(traced)
        x.register_hook(traced)  # type: ignore[no-untyped-call]

    def _hold(self) -> bool:
        """Whether weights hold a gradient, as those do to which another is added."""
        if self._accumulates:  # it was said; looking waits for the device
            return True
        found = (each.grad for each in self._weights)
        gradient = next((each for each in found if each is not None and not each.is_sparse), None)
        return gradient is not None and bool(gradient.any())

    def without_gradients(self, layer: Layer) -> None:
        """A layer in train() is called while gradients are off."""
        if layer.name in self._moved or not has_statistics(layer.module) or in_function():
            return
        self._moved.add(layer.name)
        known = self.noted.get("moved-without-gradients")
        if known is None:
            known = Noted([], self.step, MOVED, users_line())
            if self._lone:  # see which others are called; how often is not seen in this step
                self.begin()
                self.all_seen = False
        self.noted["moved-without-gradients"] = replace(known, layers=[*known.layers, layer.name])

    # --- steps ------------------------------------------------------------------------------------

    def modes(self) -> list[bool]:
        """Whether each layer is in train()."""
        return [layer.module.training for layer in self.layers.values()]

    def optimized(self, optimizer: int, ours: bool) -> bool:
        """Any optimizer has made a step; `ours`: with parameters of this network. Returns whether
        passes came before."""
        led = self._led
        if led:
            self._steady = self._steady or optimizer == self._optimizer
            self._optimizer = optimizer
            self._optimizers.add(optimizer)
        self._led, self._others = False, self._others or not ours
        return led

    def stepped(self, step: int, modes: list[bool]) -> None:
        """So many steps have been made: note what the passes before the last one were."""
        self._made += 1
        found = dict[str, Noted]()
        if self.all_seen and self.calls:
            self._judge_calls(step, found)
        if len(self.passes) != 1 or self.passes[0].backward < 0:
            found |= self._judge_passes(step)
        if modes != self._modes:
            self._judge_modes(modes, step)
        # Where two optimizers take turns, as in a GAN, it is not known which passes are whose.
        self._unsure = found | self._unsure
        if self._steady:
            self.noted, self._unsure = self._unsure | self.noted, {}
        first, self.step = self.first, step
        self._clear()
        if self._made < SAMPLED // 8 or self._made % SAMPLED == 0:
            self.traced = None
            self.begin()
        elif not self._lone and first is not None:
            self.end()
            self.all_seen, self._lone = False, True
            for layer in {first, self.traced or first}:
                layer.put(self._hooks)

    def ended(self) -> None:
        """The loop has ended: no step follows what is here."""
        if self._steady or len(self._optimizers) < 2:
            self.noted = dict(self._unused()) | self._unsure | self.noted

    def _clear(self) -> None:
        self.first, self._others = None, False
        self.passes.clear()
        self.calls.clear()
        self._roots = self.within = 0

    def _judge_calls(self, step: int, found: dict[str, Noted]) -> None:
        """Layers that are called several times in a forward pass. Where the whole network is not
        called, but parts of it, those that are called more often than others."""
        self._called = list(dict.fromkeys(name for name, _ in self.calls))
        whole = {key: number for key, number in self.calls.items() if key[1]}
        counts, least = whole or self.calls, 1 if whole else min(self.calls.values())
        self._reused = {name for (name, _), number in counts.items() if number > least}
        if self._reused:
            (most, _), number = max(counts.items(), key=lambda each: each[1])
            times = f"{number} times in one forward pass"
            if not whole:
                times = f"{number} times in one step, others {least}"
            layers = [name for name in self._called if name in self._reused]
            said = Noted(layers, step, f"layer {most} was called {times}")
            (self.noted if whole else found)["reused-layer"] = said

    def _judge_passes(self, step: int) -> Iterator[tuple[str, Noted]]:
        together = set[int]()  # backward passes since gradients were zero
        for each in self.passes:
            if not each.held:
                together.clear()
            together |= {each.backward} - {-1}
        if len(together) > 1:
            self._accumulates = True
            evidence = (
                f"{len(together)} backward passes make one optimizer step, so that each forward "
                f"pass normalizes by its own {counted(self._rows, 'example')}"
            )
            yield "micro-batches", Noted(self._training(), step, evidence)
        if any(each.backward >= 0 for each in self.passes):  # else the step was of another part
            yield from self._unused()

    def _unused(self) -> Iterator[tuple[str, Noted]]:
        """Passes with gradients that no backward pass has followed."""
        unused = [each for each in self.passes if each.backward < 0]
        layers = [name for name in self._training() if has_statistics(self.layers[name].module)]
        if unused and layers and self.traced is not None and self.traced.name not in self._reused:
            passes = "a pass" if len(unused) == 1 else f"{len(unused):,} passes"
            evidence = f"{passes} in train() with no backward pass moved {STATISTICS}"
            yield "moved-without-gradients", Noted(layers, unused[0].step, evidence)

    def _training(self) -> list[str]:
        """Layers in train() that were called when all were seen."""
        return [name for name in self._called if self.layers[name].module.training]

    def _judge_modes(self, modes: list[bool], step: int) -> None:
        begun, self._modes = self._modes, self._modes or modes
        changed = [
            (layer.name, mode)
            for layer, mode, before in zip(self.layers.values(), modes, begun, strict=False)
            if mode != before
        ]
        for now, name in ((False, "frozen"), (True, "no-longer-frozen")):
            layers = [layer for layer, mode in changed if mode is now]
            if layers:
                self.noted[name] = Noted(layers, step, EVIDENCE[name])

    def said(self) -> Iterator[tuple[str, Noted]]:
        """What has been noted, by name, with the layers in the evidence."""
        noted, self.noted = self.noted, {}
        for name, each in noted.items():
            names = [layer or "the model" for layer in each.layers]
            some = f"{counted(len(names), 'layer')} ({cut(names)})"
            yield name, replace(each, evidence=each.evidence.replace("{}", some))


STATISTICS = "running statistics of {}"
MOVED = f"a pass in train() with gradients switched off moved {STATISTICS}"
EVIDENCE = {
    "frozen": "{} began in train() and trained in eval() in this step",
    "no-longer-frozen": "{} began in eval() and trained in train() in this step",
    "small-last-batch": "a batch of one among larger ones, in {}",
    "batch-too-small": "a batch of one, in {}: its statistics are those of a single example",
}
"""What is said, with the layers."""
