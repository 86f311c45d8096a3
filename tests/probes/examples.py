"""Small networks and images for the tests of probes, and what their twins share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from bnbench.events import Reading, Split
from bnbench.norms.batch import BatchNorm
from bnbench.probes.stand_in import AsInTraining
from bnbench.probes.statistics import Discrepancy, Sample

STEP = 7
CLASSES = 3
Norm = Callable[[int], nn.Module]


def network(make_norm: Norm = BatchNorm) -> nn.Sequential:
    """Two units, dropout and a head in fp64, nothing at its initial value.

    In fp64, so that a twin that sums in another order agrees to many digits.
    """
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2),
        make_norm(4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2),
        make_norm(4),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4, CLASSES),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.copy_(drawn * 0.7)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                drawn = torch.randn(buffer.shape, generator=random, dtype=torch.float64)
                buffer.copy_(drawn * 0.3)
            elif name.endswith("running_var"):
                drawn = torch.rand(buffer.shape, generator=random, dtype=torch.float64)
                buffer.copy_(drawn + 0.5)
    return model


NORMS = ("1", "4")
"""Where `network` has them."""


def reseed(step: int) -> None:
    torch.default_generator.manual_seed(step)


AS_IN_TRAINING = AsInTraining(normalization=NORMS, reseed=reseed)


def how(norm_batch_size: int = 4, pass_size: int = 8) -> Discrepancy:
    return Discrepancy(norm_batch_size=norm_batch_size, pass_size=pass_size)


@dataclass(frozen=True)
class Pictures:
    """Images and labels of which to make samples."""

    x: Tensor
    y: Tensor

    def sample(self, split: Split = "train") -> Sample:
        return Sample(split=split, images=len(self.y), batches=self.batches)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.y), size):
            yield self.x[start : start + size], self.y[start : start + size]

    def at(self, positions: Tensor) -> Sample:
        return replace(self, x=self.x[positions], y=self.y[positions]).sample()


def pictures(n: int, seed: int = 0) -> Pictures:
    """Neighbours alike, so that chunks differ from each other and the others in a batch matter."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 6, 6, generator=random, dtype=torch.float64)
    x = x + torch.linspace(-2, 2, n, dtype=torch.float64).view(n, 1, 1, 1)
    return Pictures(x, torch.randint(CLASSES, (n,), generator=random))


def batch(n: int = 8, seed: int = 3) -> tuple[Tensor, Tensor]:
    """One training batch."""
    drawn = pictures(n, seed)
    return drawn.x, drawn.y


def by_name(facts: list[Reading]) -> dict[tuple[str, str], float]:
    """Readings by layer and name; each of them once."""
    found = {(fact.layer, fact.name): fact.value for fact in facts}
    assert len(found) == len(facts)
    return found


# --- what twins are made of: torch's own training mode, numbers by NumPy ---------------------


def trainer(model: nn.Module) -> nn.Module:
    """A copy in training mode, dropout left out."""
    twin = copy.deepcopy(model).train()
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return twin


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Mean −log softmax of the right class, by its definition."""
    z = logits.detach().double().numpy().copy()
    z -= z.max(1, keepdims=True)
    right = z[np.arange(len(z)), labels.numpy()]
    return float(np.mean(np.log(np.exp(z).sum(1)) - right))


@torch.no_grad()
def loss_at(model: nn.Module, weights: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> float:
    """The loss of a batch in training mode with these weights in the place of the model's."""
    return _loss(_with_weights(model, weights), data)


def _with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    twin = trainer(model)
    for name, value in weights.items():
        twin.get_parameter(name).copy_(value)
    return twin


def _loss(twin: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    torch.manual_seed(7)  # the noise of step 7
    return cross_entropy(twin(data[0]), data[1])


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}


@torch.no_grad()
def gradient_at(
    model: nn.Module, weights: dict[str, Tensor], data: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """The gradient by central differences: no autograd, no analysis."""
    found, twin = {}, _with_weights(model, weights)
    for name, tensor in weights.items():
        gradient, values = torch.zeros_like(tensor), twin.get_parameter(name).view(-1)
        for place in range(tensor.numel()):
            here, sides = float(values[place]), []
            for step in (1e-5, -1e-5):
                values[place] = here + step
                sides.append(_loss(twin, data))
            values[place] = here
            gradient.view(-1)[place] = (sides[0] - sides[1]) / 2e-5
        found[name] = gradient
    return found


def flat(tensors: dict[str, Tensor]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """All of them as one vector."""
    return np.concatenate([each.numpy().reshape(-1) for each in tensors.values()])
