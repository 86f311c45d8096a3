"""Where a layer uses its running statistics: the one place where others can be put in, so that
all else that its forward does (activating, casting, hooks) is done.

As a rule this is a call of `F.batch_norm`, `F.instance_norm` or `torch.batch_norm` with the layer's
buffers. A layer that reads its buffers in another way is called again, with others in them. Inside
of TorchScript it is the operator that those functions end in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bnbench.running_statistics import STATISTICS, means, tables

FUNCTIONS: Mapping[Callable[..., Tensor], Sequence[str]] = {
    F.batch_norm: ("input", *STATISTICS, "weight", "bias", "training", "momentum", "eps"),
    F.instance_norm: ("input", *STATISTICS, "weight", "bias", "use_input_stats", "momentum", "eps"),
    torch.batch_norm: ("input", "weight", "bias", *STATISTICS, "training", "momentum", "eps"),
}
"""With the names of their arguments, in order."""

OPERATORS: Mapping[Any, Sequence[str]] = dict.fromkeys(
    (torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default),
    FUNCTIONS[torch.batch_norm],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of a layer's statistics for an input x, (N, C, *).

    `call`: its number in the forward pass, from 0. `own`: it takes the statistics of x.
    `each_image`: of each image alone, as InstanceNorm. `again`: the layer's forward as a function
    of x, where it calls none of `FUNCTIONS`.
    """

    layer: str
    module: nn.Module
    call: int
    x: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5
    own: bool = False
    each_image: bool = False
    again: Callable[[Tensor], Tensor] | None = None

    def with_statistics(self, mean: Tensor, variance: Tensor) -> Tensor:
        """What inference gives with these, (C,), the variance biased."""
        if self.again is None:
            mean, variance = (each.to(means(self.module)) for each in (mean, variance))
            return F.batch_norm(self.x, mean, variance, self.weight, self.bias, eps=self.eps)
        with holding(self.module, mean, variance):
            return self.again(self.x)


Act = Callable[[Use], Tensor | None]
"""What is to be done instead; None: what would have been done."""


def class_name(module: nn.Module) -> str:
    """The name of its class, also of one that TorchScript has made another of."""
    return str(getattr(module, "original_name", type(module).__name__))


def tensors_in(
    modules: Iterable[nn.Module], *kinds: Literal["_parameters", "_buffers"]
) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Where modules keep their parameters, or buffers, or both."""
    for module in modules:
        for kind in kinds:
            table = getattr(module, kind)
            yield from ((table, name, each) for name, each in table.items() if each is not None)


@contextmanager
def tensors_restored(tensors: Iterable[tuple[dict[str, Any], str, Tensor]]) -> Iterator[None]:
    """Give tensors their values back on leaving, and their places, where another may be."""
    before = [(*place, place[2].detach().clone()) for place in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for table, name, tensor, value in before:
                table[name] = tensor
                if not torch.equal(tensor, value):
                    tensor.copy_(value)


@contextmanager
def holding(module: nn.Module, mean: Tensor, variance: Tensor) -> Iterator[None]:
    """The module with these running statistics, (C,)."""
    own = list(tables(module))
    for (table, name, before), value in zip(own, (mean, variance), strict=True):
        table[name] = value.to(before).view_as(before)
    try:
        yield
    finally:
        for table, name, before in own:
            table[name] = before


def input_of(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Callable[[Tensor], Any]] | None:
    """The first tensor that a layer is called with, and its forward as a function of it."""
    if args and isinstance(args[0], Tensor):
        return args[0], lambda x: module.forward(x, *args[1:], **kwargs)
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            return value, lambda x, name=name: module.forward(*args, **{**kwargs, name: x})
    return None


class _Interception(TorchFunctionMode):
    active: ClassVar[list[_Interception]] = []  # the innermost last

    def __init__(self, layers: Mapping[str, nn.Module], act: Act) -> None:
        super().__init__()
        self.layers, self.act = layers, act
        self.means = {name: means(layer) for name, layer in layers.items()}
        self.names = {id(tensor): name for name, tensor in self.means.items()}
        self.calls: Counter[str] = Counter()
        self.before: dict[str, int] = {}
        self.inputs: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: object) -> _Interception:
        return self  # the hooks of a copied network are its own, and do nothing there

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FUNCTIONS:
            given = dict(zip(FUNCTIONS[func], args, strict=False)) | kwargs
            layer = self.names.get(id(given.get(STATISTICS[0])))
            if layer is not None:
                result = self.act(self.use(layer, func is F.instance_norm, given))
                if result is not None:
                    return result
        return func(*args, **kwargs)

    def use(self, layer: str, each_image: bool, given: Mapping[str, Any]) -> Use:
        return Use(
            layer=layer,
            module=self.layers[layer],
            call=self.counted(layer),
            x=given["input"],
            weight=given.get("weight"),
            bias=given.get("bias"),
            eps=given.get("eps", 1e-5),
            own=given.get("use_input_stats", True) if each_image else given.get("training", False),
            each_image=each_image,
        )

    def counted(self, layer: str) -> int:
        self.calls[layer] += 1
        return self.calls[layer] - 1

    def enter(self, layer: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if module is not self.layers[layer]:
            return
        self.before[layer] = self.calls[layer]
        called = input_of(module, args, kwargs)
        if called is not None and not isinstance(module, _NormBase):
            self.inputs[layer] = called[0].clone()  # it may change them in place

    def leave(self, layer: str, module: nn.Module, args: Any, kwargs: Any, _: Any) -> Any:
        """Another output for a layer that called none of `FUNCTIONS`."""
        copied = self.inputs.pop(layer, None)
        inner = _Interception.active[_Interception.active.index(self) + 1 :]
        if module is not self.layers[layer] or any(
            module in each.layers.values() for each in inner
        ):
            return None
        called = input_of(module, args, kwargs)
        if self.calls[layer] > self.before[layer] or called is None:
            return None
        x, again = called
        x = x if copied is None else copied
        call = self.counted(layer)
        return self.act(Use(layer=layer, module=module, call=call, x=x, again=again))


class _InScript(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The same for layers inside of TorchScript, whose calls no function mode sees."""

    def __init__(self, mode: _Interception, layers: Iterable[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mode, self.layers = mode, {*layers}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in OPERATORS:
            given = dict(zip(OPERATORS[func], args, strict=False))
            layer = self.mode.names.get(id(given[STATISTICS[0]]))
            if layer in self.layers:
                result = self.mode.act(self.mode.use(layer, False, given))
                if result is not None:  # with what is kept for a backward pass, in vain
                    more = len(func._schema.returns) - 1
                    return result, *(result.new_empty(0) for _ in range(more))
        return func(*args, **(kwargs or {}))


@contextmanager
def intercepted(model: nn.Module, layers: Mapping[str, nn.Module], act: Act) -> Iterator[None]:
    """Let `act` do what these layers use their statistics for. The innermost context is asked
    first; calls are counted from the beginning of each pass through `model`."""
    mode = _Interception(layers, act)
    with ExitStack() as stack:
        stack.enter_context(model.register_forward_pre_hook(lambda *_: mode.calls.clear()))
        scripted = {name for name, layer in layers.items() if isinstance(layer, ScriptModule)}
        for name, layer in layers.items():
            if name in scripted:
                continue
            enter, leave = partial(mode.enter, name), partial(mode.leave, name)
            stack.enter_context(layer.register_forward_pre_hook(enter, with_kwargs=True))
            stack.enter_context(layer.register_forward_hook(leave, prepend=True, with_kwargs=True))
        _Interception.active.append(mode)
        stack.callback(_Interception.active.remove, mode)
        stack.enter_context(mode)
        if scripted:
            stack.enter_context(_InScript(mode, scripted))
        yield
