"""What the layers of a network in training are called with, and in which mode: between two
optimizer steps, without waiting for a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from bnbench.probes.interception import class_name, has_statistics
from bnbench.wording import counted, cut

SAMPLED = 32
"""Steps, of which one has all layers' calls seen. A hook takes 1 µs, and 10 µs where other work has
pushed Python out of the caches."""


def _nothing(*_: object) -> None:
    """The hook of a network that was pickled."""


def _nothing_instead() -> Callable[..., None]:
    return _nothing


class Hook:
    """A forward pre-hook of one module: copies of the network, which have other modules, are left
    alone."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        return _nothing_instead, ()


class Root(Hook):
    """Runs before each training pass through the whole network."""

    def __init__(self, module: nn.Module, begins: Callable[[Any], object]) -> None:
        super().__init__(module)
        self._begins = begins

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or not module.training or module is not self.module:
            return
        if torch.is_grad_enabled() and not in_backward():
            self._begins(args)


def in_backward() -> bool:
    """Whether this is called by a backward pass, as activation checkpointing does."""
    return torch._C._current_graph_task_id() != -1


class Layer(Hook):
    """A normalization layer: its `calls` in the step `step`."""

    def __init__(self, name: str, module: nn.Module, passes: Passing) -> None:
        super().__init__(module)
        self.name, self.passes = name, passes
        self.step, self.calls = -1, 0
        self.of_batch = not isinstance(module, _InstanceNorm)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Runs in each forward pass, before the layer: every microsecond counts."""
        # A compiled network would be compiled again for every count.
        if torch.compiler.is_compiling() or not module.training or module is not self.module:
            return
        passes = self.passes
        if not torch.is_grad_enabled():
            if not passes.moved:
                passes.moved = passes.moving()
            return
        if self.step != passes.step:
            self.step, self.calls = passes.step, 1
        elif in_backward():
            return  # the same batch again
        else:
            self.calls += 1
            passes.again[self.name] = self
        if passes.first is None:
            passes.first, passes.blind = self, False
        if passes.first is self and args and isinstance(args[0], Tensor):
            passes.look(args[0])


def _acts(module: nn.Module) -> bool:
    """Whether it does something else in train() than in eval(), as FrozenBatchNorm2d does not."""
    return isinstance(module, _NormBase) or "frozen" not in class_name(module).lower()


class Passing:
    """Forward and backward passes since the last optimizer step.

    Every layer is looked at in the first steps, and in one of `SAMPLED`; in between the first layer
    of a pass alone, unless it is called in another way than before: hooks of Python's take time.

    `first`: the layer that was called first since then. `blind`: no layer has been seen called.
    `moved`: those in train() when a pass had no gradients. `examples`, `batch_size`: rows of the
    first one's inputs in all, and the most of them at once. `autocast`: what the last pass ran in.
    `noted`: layers by name, by what there is to say of them.
    """

    def __init__(self, network: nn.Module, norms: Mapping[str, nn.Module]) -> None:
        self.layers = {name: Layer(name, each, self) for name, each in norms.items() if _acts(each)}
        self.step, self.backwards = 0, 0
        self.first: Layer | None = None
        self.blind = True
        self.moved: dict[str, Layer] = {}
        self.examples, self.batch_size, self._rows = 0, 0, 0
        self.autocast: Callable[[], AbstractContextManager[object]] = nullcontext
        self.noted: dict[str, dict[str, Layer]] = {}
        self.again: dict[str, Layer] = {}
        self.evidence: dict[str, str] = {}
        self.before_pass: Callable[[], object] | None = None
        self._network = network
        self._hooks = ExitStack()
        self._lone: Layer | None = None
        self._known: set[int] = set()
        self._modules = [layer.module for layer in self.layers.values()]
        self._modes: list[bool] = []

    def begin(self) -> None:
        """See every layer called from now on, until `end`."""
        self.end()
        self._lone = None
        for layer in self.layers.values():
            if not isinstance(layer.module, ScriptModule):  # which takes no hooks
                self._hook(layer)
        known = next((each for each in self._network.parameters() if each.grad is not None), None)
        if known is not None:
            handle = known.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._backward
            )
            self._hooks.callback(handle.remove)

    def end(self) -> None:
        """Remove the hooks."""
        self._hooks.close()

    def _hook(self, layer: Layer) -> None:
        self._hooks.callback(layer.module.register_forward_pre_hook(layer).remove)

    def look(self, x: Tensor) -> None:
        """At the input of the first layer, or of the network, (N, *), in a pass with gradients."""
        examples, kind = x.shape[0], x.device.type
        self._rows = examples
        self.examples += examples
        if examples == 1 and self.first is not None and self.first.of_batch:
            name = "small-last-batch" if self.batch_size > 1 else "batch-too-small"
            self.noted.setdefault(name, {})[self.first.name] = self.first
        elif examples > self.batch_size:
            self.batch_size = examples
        self.autocast = nullcontext
        if torch.is_autocast_enabled(kind):
            self.autocast = partial(torch.autocast, kind, torch.get_autocast_dtype(kind))
        if self.before_pass is not None:
            self.before_pass()

    def moving(self) -> dict[str, Layer]:
        """Layers whose running statistics a pass would move now."""
        training = {name: each for name, each in self.layers.items() if each.module.training}
        return {name: each for name, each in training.items() if has_statistics(each.module)}

    def _backward(self, _: Tensor) -> None:
        self.backwards += 1

    def stepped(self) -> None:
        """An optimizer step has been made: note what the passes before it were."""
        lone, odd = self._lone, False
        if self.again and lone is None:
            self._judge_calls()
        elif lone is not None:
            calls = lone.calls if lone.step == self.step else 0
            odd = calls != 1 and calls not in self._known
            self._known.add(calls)
        modes = [module.training for module in self._modules]
        if modes != self._modes:
            self._judge_modes(modes)
        first, self.first = self.first, None
        self.step += 1
        self.backwards = 0
        self.again.clear()
        if odd or self.step < SAMPLED // 8 or self.step % SAMPLED == 0:
            self.begin()
        elif lone is None and first is not None:
            self.end()
            self._lone = first
            self._hook(first)

    def _judge_calls(self) -> None:
        again, backwards = dict(self.again), self.backwards
        if backwards > 1:
            self.noted["micro-batches"] = again
            self.evidence["micro-batches"] = (
                f"{backwards} backward passes make one optimizer step, so that each forward pass "
                f"normalizes by its own {counted(self._rows, 'example')}"
            )
        reused = {name: each for name, each in again.items() if 0 < backwards < each.calls}
        if reused:
            worst = max(reused.values(), key=lambda each: each.calls)
            self.noted["reused-layer"] = reused
            passes = "one backward pass" if backwards == 1 else f"{backwards} backward passes"
            self.evidence["reused-layer"] = (
                f"layer {worst.name} was called {worst.calls} times for {passes}"
            )

    def _judge_modes(self, modes: list[bool]) -> None:
        begun, self._modes = self._modes, self._modes or modes
        for layer, mode, before in zip(self.layers.values(), modes, begun, strict=False):
            if mode != before:
                name = "no-longer-frozen" if mode else "frozen"
                self.noted.setdefault(name, {})[layer.name] = layer

    def said(self) -> Iterator[tuple[str, list[str], str]]:
        """What has been noted: name, layers, evidence."""
        noted, self.noted = self.noted, {}
        if self.moved:
            noted["moved-without-gradients"], self.moved = self.moved, {}
        for name, layers in noted.items():
            names = list(layers)
            some = (
                f"{counted(len(names), 'layer')} ({cut([each or 'the model' for each in names])})"
            )
            yield name, names, self.evidence.get(name) or EVIDENCE[name].format(some)


EVIDENCE = {
    "moved-without-gradients": "a pass without gradients moved running statistics: {} in train()",
    "frozen": "{} began in train() and trained in eval() in this step",
    "no-longer-frozen": "{} began in eval() and trained in train() in this step",
    "small-last-batch": "a batch of one among larger ones, in {}",
    "batch-too-small": "a batch of one, in {}: its statistics are those of a single example",
}
"""What is said, with the layers."""
