"""Hooks on the layers of a network in training: in which order they are called, and which of those
passes a backward pass follows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.instancenorm import _InstanceNorm

if TYPE_CHECKING:
    from bnbench.watching.calls import Passing


def _nothing(*_: object) -> None:
    """The hook of a network that was pickled."""


class Hook:
    """A hook of one module: copies of the network, which have other modules, are left alone."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def put(self, hooks: ExitStack, *, after: bool = False) -> None:
        """Have it called before or after the module, until the stack is closed; a module of
        TorchScript takes no hooks."""
        if not isinstance(self.module, ScriptModule):
            register = "register_forward_hook" if after else "register_forward_pre_hook"
            hooks.callback(getattr(self.module, register)(self).remove)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        return partial, (_nothing,)


class Root(Hook):
    """Runs before or after each pass with gradients through the whole network, in any mode."""

    def __init__(self, module: nn.Module, tell: Callable[[Any], object]) -> None:
        super().__init__(module)
        self._tell = tell

    def __call__(self, module: nn.Module, args: Any, *_: Any) -> None:
        if torch.compiler.is_compiling() or module is not self.module:
            return
        if torch.is_grad_enabled() and not in_backward():
            self._tell(args)


def in_backward() -> bool:
    """Whether this is called by a backward pass, as activation checkpointing does."""
    return torch._C._current_graph_task_id() != -1


class Pass:
    """A forward pass through a layer in train(), and the hook of the layer's input that is called
    in backward passes.

    `step`: steps made before. `backward`: the last backward pass that it had part in; -1: none.
    `held`: whether the weights held gradients when it began.
    """

    __slots__ = ("backward", "held", "step")

    def __init__(self, step: int, held: bool) -> None:
        self.step, self.held, self.backward = step, held, -1

    def __call__(self, _: Tensor) -> None:
        self.backward = torch._C._current_graph_task_id()


class Layer(Hook):
    """A normalization layer: looks at its calls."""

    def __init__(self, name: str, module: nn.Module, passing: Passing) -> None:
        super().__init__(module)
        self.name, self.passing = name, passing
        self.of_batch = not isinstance(module, _InstanceNorm)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Runs in each forward pass, before the layer: every microsecond counts."""
        # A compiled network would be compiled again for every count.
        if torch.compiler.is_compiling() or not module.training or module is not self.module:
            return
        passing = self.passing
        if not torch.is_grad_enabled():
            passing.without_gradients(self)
            return
        if in_backward():
            return  # the same batch again
        if passing.first is None:
            passing.first, passing.blind = self, False
        x = args[0] if args else None
        if isinstance(x, Tensor):
            if passing.first is self:
                passing.look(x)
            if passing.traced in (None, self) and x.grad_fn is not None:
                passing.traced = self
                passing.trace(x)
        if passing.all_seen:
            passing.calls[self.name, passing.within] += 1
