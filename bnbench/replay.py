"""A training step as the kernels that it calls: captured once, then replayed.

Replayed are the same kernels with the same arguments in the same order, and so the same bits,
without the modules and the autograd around them, which take a third of a step where a batch is of
two images. What Python decides on the way is decided once, when it is captured, as in CUDA graphs
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). A step that reads a number from
a tensor may decide otherwise next time, and is never replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeAlias, cast
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Update: TypeAlias = Callable[[int, Tensor, Tensor, float], Tensor]
"""A training step, from its number, images, labels and learning rate: its loss."""


class Replayed:
    """An update whose kernels are captured at the first batch of each shape, and then replayed.

    `reseed`: what the update draws random numbers after, by the number of the step. The first step
    of all is not captured: optimizers make their state in it.
    """

    def __init__(self, update: Update, reseed: Callable[[int], None]) -> None:
        self._update, self._reseed = update, reseed
        self._by_shape: dict[torch.Size, Update] = {}
        self._begun = False

    def __call__(self, step: int, images: Tensor, labels: Tensor, lr: float) -> Tensor:
        if not self._begun:
            self._begun = True
            return self._update(step, images, labels, lr)
        if images.shape in self._by_shape:
            return self._by_shape[images.shape](step, images, labels, lr)
        with _Capture(images=images, labels=labels) as capture:
            loss = self._update(step, images, labels, lr)
        self._by_shape[images.shape] = capture.replay(loss, self._reseed) or self._update
        return loss


class _Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the kernels that are called inside, below autograd, as Python."""

    def __init__(self, **inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[str, list[str]]] = []  # lines, and the step's own tensors in them
        self._fixed: dict[str, object] = {}  # the same in each step: kernels, numbers, parameters
        # Weak: what the step frees is freed here, too, and gradients are not copied for our sake.
        # By id: torch's dictionary of weak keys takes a third of the capture of a deep network.
        self._names = {id(each): (ref(each), name) for name, each in inputs.items()}
        self._numbers = count()
        self._replayable, self._random, self._has_rate = True, False, False

    def replay(self, loss: Tensor, reseed: Callable[[int], None]) -> Update | None:
        """What was called, where it can be replayed to this result."""
        if not (self._replayable and self._has_rate):
            return None
        lines: list[str] = []
        result = self._name_of(loss)
        assert result is not None
        later = {result}
        for line, tensors in reversed(self._calls):
            if done := sorted({*tensors} - later):
                lines.append(f"del {', '.join(done)}")
            lines.append(line)
            later.update(done)
        lines += ["reseed(step)"] if self._random else []
        body = "\n    ".join([*reversed(lines), f"return {result}"])
        names = self._fixed | {"reseed": reseed}
        exec(f"def replay(step, images, labels, lr):\n    {body}", names)
        return torch.no_grad()(cast(Update, names["replay"]))

    def _captured(self, func: Any, _: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten.detach.default:
            self._set_name(result, self._name(args[0], []))
        else:
            self._write(func, args, kwargs, result)
        return result

    def _write(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """Add a line for this call, unless no tensor is in it."""
        used: list[str] = []
        given = [self._name(each, used) for each in args]
        # The one number that differs from step to step.
        rate = {"lr": "lr"} if "lr" in kwargs else {}
        given += [f"{key}={rate.get(key) or self._name(kwargs[key], used)}" for key in kwargs]
        results = result if isinstance(result, list | tuple) else [result]
        numbers = any(not (each is None or isinstance(each, Tensor)) for each in results)
        self._replayable &= not (numbers and used)  # Python may decide on what it has read
        made = [self._made(each) for each in results]
        names = [each for each in (*used, *made) if each != "_"]
        if not names:
            return
        line = f"{self._keep(func._op)}({', '.join(given)})"
        if {*made} - {"_"}:
            line = f"{', '.join(made)}{',' * isinstance(result, list | tuple)} = {line}"
        self._calls.append((line, [each for each in names if each.startswith("t")]))
        self._has_rate |= bool(rate)
        self._random |= torch.Tag.nondeterministic_seeded in func.tags

    def _name(self, value: Any, used: list[str]) -> str:
        """What an argument is called in a line; names of tensors are added to `used`."""
        if isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            return f"[{', '.join(self._name(each, used) for each in value)}]"
        if not isinstance(value, Tensor):
            return self._keep(value)
        name = self._name_of(value) or self._set_name(value, self._keep(value))
        used.append(name)
        return name

    def _keep(self, value: object) -> str:
        name = f"fixed{len(self._fixed)}"
        self._fixed[name] = value
        return name

    def _made(self, value: Any) -> str:
        """What a result is called from now on; what has a name is an argument, changed in place."""
        if not isinstance(value, Tensor) or self._name_of(value):
            return "_"
        return self._set_name(value, f"t{next(self._numbers)}")

    def _name_of(self, tensor: Tensor) -> str | None:
        """Its name; None if it has none, also where another that is freed had its id."""
        weak, name = self._names.get(id(tensor), (None, None))
        return name if weak and weak() is tensor else None

    def _set_name(self, tensor: Tensor, name: str) -> str:
        self._names[id(tensor)] = ref(tensor), name
        return name


# Not in the body of the class: torch would wrap it for its compiler, whose import takes a second.
_Capture.__torch_dispatch__ = _Capture._captured  # type: ignore[method-assign, assignment]
