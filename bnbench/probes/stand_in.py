"""A copy of the network that does what training would do, while the network itself is unchanged.

What moves weights or needs gradients is measured on the copy. The network's weights, buffers,
gradients, flags and hooks are not touched at all; the state of the random generators is restored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import fsum, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bnbench.probes.statistics import Autocast

Weights = Mapping[str, Tensor]
"""A tensor for each trained parameter, by its name."""


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers, by name, in the network's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    }


def trained_layers(model: nn.Module) -> dict[str, str]:
    """The weight layers whose weights are trained, each with the name of its weight."""
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    weights = {name: f"{name}.weight" if name else "weight" for name in weight_layers(model)}
    return {name: weight for name, weight in weights.items() if weight in trained}


@dataclass(frozen=True, slots=True)
class AsInTraining:
    """How the network is run in training.

    `normalization`: names of the layers that are put in training mode; dropout is left out.
    `reseed(step)`: lets layers that draw random numbers draw those of that step.
    """

    normalization: tuple[str, ...]
    reseed: Callable[[int], None] = lambda _: None
    autocast: Autocast = nullcontext


class StandIn:
    """The copy. Each pass starts from the same buffers, with the random numbers of `step`, so that
    the loss is a function of the weights alone."""

    def __init__(
        self,
        model: nn.Module,
        how: AsInTraining,
        step: int,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self._how, self.step = how, step
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.parameters = {
            name: each for name, each in model.named_parameters() if each.requires_grad
        }

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters as they are now, copied."""
        return {name: each.detach().clone() for name, each in self.parameters.items()}

    @torch.no_grad()
    def place(self, weights: Weights) -> None:
        """Give these parameters these values."""
        for name, value in weights.items():
            self.parameters[name].copy_(value)

    def output(self, images: Tensor) -> Tensor:
        """Logits of one training batch."""
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(self._buffers[name])
        self._how.reseed(self.step)
        with self._how.autocast():
            logits: Tensor = self.model(images)
        return logits

    def loss(self, images: Tensor, labels: Tensor) -> float:
        """Mean cross entropy of a batch, in nats."""
        with torch.no_grad():
            return self._loss(images, labels).item()

    def gradient(
        self, images: Tensor, labels: Tensor, only: str | None = None
    ) -> tuple[float, dict[str, Tensor]]:
        """The loss of a batch and its gradient, a tensor for each trained parameter, or for one."""
        loss = self._loss(images, labels)
        wanted = self.parameters if only is None else {only: self.parameters[only]}
        found = torch.autograd.grad(
            loss, list(wanted.values()), allow_unused=True, materialize_grads=True
        )
        return loss.item(), dict(zip(wanted, found, strict=True))

    def weights_after_step(self, gradient: Weights, lr: float) -> dict[str, Tensor]:
        """The weights after a step of the copied optimizer along this gradient: in place."""
        assert self.optimizer is not None
        for name, parameter in self.parameters.items():
            parameter.grad = gradient[name].clone()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return self.weights()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.output(images)
        with self._how.autocast():
            return F.cross_entropy(logits, labels)


@contextmanager
def stand_in(
    model: nn.Module,
    how: AsInTraining,
    step: int,
    optimizer: torch.optim.Optimizer | None = None,
) -> Iterator[StandIn]:
    """A copy of `model` as it is before training step `step`, with gradients enabled.

    With an `optimizer`, a copy of that as well, which holds the copied parameters. Raises what
    copying raises: see `cannot_be_copied`.
    """
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    # On MPS, every training step seeds the generator anyway.
    devices = [device] if device.type == "cuda" else []
    with torch.enable_grad(), torch.random.fork_rng(devices):
        twin, its_optimizer = copy.deepcopy((model, optimizer))
        twin.eval()
        for name in how.normalization:
            twin.get_submodule(name).train()
        for parameter in twin.parameters():
            parameter.grad = None
        yield StandIn(twin, how, step, its_optimizer)


def cannot_be_copied(model: nn.Module) -> str | None:
    """Why there can be no stand-in for the network, or None."""
    try:
        copy.deepcopy(model)
    except Exception as error:
        return f"the network cannot be copied ({type(error).__name__}: {error})"
    return None


def norm(tensors: Weights) -> float:
    """‖·‖₂ over all of them, summed in fp64."""
    return sqrt(fsum(each.double().square().sum().item() for each in tensors.values()))


def ratio(above: float, below: float) -> float:
    """above/below; NaN where `below` is 0, which is no measurement."""
    return above / below if below else float("nan")


def minus(one: Weights, other: Weights) -> dict[str, Tensor]:
    """one − other, in fp64."""
    return {name: each.double() - other[name].double() for name, each in one.items()}
