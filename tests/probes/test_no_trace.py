"""No probe leaves a trace: whatever happens, network and random numbers are as before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from math import inf

import pytest
import torch
from torch import Tensor, nn

from bnbench.config import schema
from bnbench.events import Histogram, Reading
from bnbench.norms.batch import BatchNorm, GhostBatchNorm
from bnbench.norms.frozen import FrozenBatchNorm
from bnbench.norms.group import GroupNorm
from bnbench.norms.noisy import NoisyBatchNorm
from bnbench.norms.renorm import BatchRenorm
from bnbench.probes import (
    activation_drift,
    batch_noise,
    decomposition,
    effective_lr,
    gap_by_layer,
    gradient_shift,
    histograms,
    landscape,
    running_error,
    shifted_images,
    step_stability,
)
from bnbench.probes.statistics import Sample, batch_statistics, evaluating
from tests.probes.examples import (
    AS_IN_TRAINING,
    STEP,
    Norm,
    batch,
    how,
    network,
    pictures,
)

Optimizer = torch.optim.Optimizer
SHOWN = pictures(24)
SETS = [
    batch_noise.draw_batches(6, 18, 4, torch.Generator().manual_seed(seed)) for seed in range(3)
]


def readers(
    sample: Sample,
) -> dict[str, Callable[[nn.Module, Optimizer], Sequence[Reading | Histogram]]]:
    """Every probe, ready to read a network and its optimizer; images come from `sample`."""

    def data() -> tuple[Tensor, Tensor]:
        return next(iter(sample.batches(8)))

    return {
        "running_error": lambda m, _: running_error.read(m, how(), population=sample),
        "gap_by_layer": lambda m, _: gap_by_layer.read(m, how(), images=sample),
        "decomposition": lambda m, _: decomposition.read(
            m, how(), norm_batch_sizes=(2,), train=sample, validation=sample
        ),
        "batch_noise": lambda m, _: batch_noise.read(
            m,
            how(),
            draws=SETS,
            sample_of=lambda _: sample,  # as long as a set is
        ),
        "activation_drift": lambda m, optimizer: activation_drift.read(
            *(m, optimizer, AS_IN_TRAINING),
            images=sample,
            batch_size=8,
            lr=0.1,
            memory={},
            step=STEP,
        ),
        "gradient_shift": lambda m, optimizer: gradient_shift.read(
            m, optimizer, AS_IN_TRAINING, batch=data(), lr=0.1, step=STEP
        ),
        "landscape": lambda m, _: landscape.read(
            m, AS_IN_TRAINING, batch=data(), steps=(0.1,), relative_steps=(0.1,), step=STEP
        ),
        "step_stability": lambda m, _: step_stability.read(
            m, AS_IN_TRAINING, batches=[data()], steps=(0.1, 1.0), step=STEP
        ),
        "effective_lr": lambda m, _: effective_lr.read(
            m, AS_IN_TRAINING, batch=data(), lr=0.1, step=STEP
        ),
        "shifted_images": lambda m, _: shifted_images.read(m, how(), {"none": sample}),
        "histograms": lambda m, _: histograms.read(m, AS_IN_TRAINING, batch=data(), step=STEP),
    }


PROBES = tuple(readers(SHOWN.sample()))


def test_every_probe_has_a_line_above() -> None:
    assert set(PROBES) == set(schema.ProbesConfig.model_fields)


class BrokenError(Exception):
    """Something in the middle of a measurement."""


class BreaksOnCall(nn.Module):
    """Lets the n-th pass fail, half-way through the network; copies count together."""

    passes: int
    limit: float

    def forward(self, x: Tensor) -> Tensor:
        type(self).passes += 1
        if type(self).passes >= type(self).limit:
            raise BrokenError
        return x


def lived_in(make_norm: Norm = BatchNorm) -> tuple[nn.Sequential, Optimizer]:
    """A network with gradients, hooks of its owner, mixed flags, and an optimizer with a past."""
    model = network(make_norm)
    model.append(BreaksOnCall())
    BreaksOnCall.passes, BreaksOnCall.limit = 0, inf
    model.register_forward_hook(lambda *_: None)
    model.train()
    model.get_submodule("8").eval()
    model.get_submodule("4").eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(batch()[0]).sum().backward()
    optimizer.step()
    return model, optimizer


def everything(model: nn.Module, optimizer: Optimizer) -> dict[str, object]:
    """What a probe must leave alone, in a form that `==` compares bit by bit."""

    def bits(tensor: Tensor | None) -> bytes | None:
        return None if tensor is None else tensor.detach().numpy().tobytes()

    return {
        "parameters": {n: (id(p), bits(p), p.requires_grad) for n, p in model.named_parameters()},
        "gradients": {n: (id(p.grad), bits(p.grad)) for n, p in model.named_parameters()},
        "buffers": {n: (id(b), bits(b)) for n, b in model.named_buffers()},
        "flags": [module.training for module in model.modules()],
        "attributes": [set(vars(module)) for module in model.modules()],
        "hooks": [
            [dict(v) for k, v in sorted(vars(module).items()) if k.endswith("_hooks")]
            for module in model.modules()
        ],
        "optimizer": {
            n: {k: bits(v) for k, v in optimizer.state[p].items()}
            for n, p in model.named_parameters()
        },
        "groups": [
            {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ],
        "random": bits(torch.get_rng_state()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


NORMS: dict[str, Norm] = {
    "batch": BatchNorm,
    "torch": nn.BatchNorm2d,
    "ghost": lambda c: GhostBatchNorm(c, batch_size=4),
    "renorm": lambda c: BatchRenorm(c, r_ramp=(0, 1), d_ramp=(0, 1)),
    "frozen": lambda c: FrozenBatchNorm(c, freeze_after=1),
    "noisy": NoisyBatchNorm,
    "group": lambda c: GroupNorm(c, groups=2),
    "none": lambda _: nn.Identity(),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("probe", PROBES)
def test_no_trace(probe: str, norm: str) -> None:
    model, optimizer = lived_in(NORMS[norm])
    read = readers(SHOWN.sample())[probe]
    before = everything(model, optimizer)
    facts = read(model, optimizer)
    assert everything(model, optimizer) == before
    assert facts
    assert {fact.probe for fact in facts} == {probe}
    assert read(model, optimizer) == facts  # nor does it remember


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("probe", PROBES)
def test_no_trace_after_a_failure(probe: str, number: int) -> None:
    """A probe that is done in fewer passes does not fail."""
    model, optimizer = lived_in()
    read = readers(SHOWN.sample())[probe]
    read(model, optimizer)
    needed = BreaksOnCall.passes - 1  # one was the training's
    before = everything(model, optimizer)
    BreaksOnCall.passes, BreaksOnCall.limit = 0, number
    with pytest.raises(BrokenError) if needed >= number else nullcontext():
        read(model, optimizer)
    assert everything(model, optimizer) == before
    assert BreaksOnCall.passes == min(number, needed)


def unavailable(broke: list[bool]) -> Sample:
    """Images of which only the first batch can be had; notes when another one was asked for."""

    def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield SHOWN.x[:size], SHOWN.y[:size]
        broke.append(True)
        raise BrokenError

    return Sample(split="train", images=24, batches=batches)


@pytest.mark.parametrize("probe", PROBES)
def test_no_trace_when_images_cannot_be_had(probe: str) -> None:
    """Probes that read one batch need no more."""
    model, optimizer = lived_in()
    before = everything(model, optimizer)
    broke: list[bool] = []
    with suppress(BrokenError):
        readers(unavailable(broke))[probe](model, optimizer)
        assert not broke, "the error is swallowed"
    assert everything(model, optimizer) == before


def test_some_readings_do_break_where_images_cannot_be_had() -> None:
    """Else the test above says nothing."""
    model, optimizer = lived_in()
    with pytest.raises(BrokenError):
        readers(unavailable([]))["running_error"](model, optimizer)


OWN_STATISTICS = ("gap_by_layer", "decomposition", "shifted_images")
"""They read running statistics, which batch statistics around them would hide."""


@pytest.mark.parametrize("outer", ["evaluating", "batch", "evaluating+batch"])
@pytest.mark.parametrize("probe", PROBES)
def test_inside_of_another_probe_it_reads_the_same(probe: str, outer: str) -> None:
    model, optimizer = lived_in(NoisyBatchNorm)
    read = readers(SHOWN.sample())[probe]
    alone = read(model, optimizer)
    before = everything(model, optimizer)
    with ExitStack() as stack:
        if "evaluating" in outer:
            stack.enter_context(evaluating(model))
        if "batch" in outer and probe not in OWN_STATISTICS:
            stack.enter_context(batch_statistics(model, 6))
        inside = everything(model, optimizer)
        assert read(model, optimizer) == alone
        assert everything(model, optimizer) == inside
    assert everything(model, optimizer) == before


def test_the_comparison_can_fail() -> None:
    """Negative control: each thing that a probe could leave changed is noticed."""
    traces: dict[str, Callable[[nn.Sequential, Optimizer], object]] = {
        "parameters": lambda m, _: m.get_parameter("0.bias").data.add_(1e-9),
        "gradients": lambda m, _: m.zero_grad(),
        "buffers": lambda m, _: m.get_submodule("1").train()(torch.randn(4, 4, 3, 3).double()),
        "flags": lambda m, _: m.eval(),
        "attributes": lambda m, _: setattr(m[1], "forward", m[1].forward),
        "hooks": lambda m, _: m[0].register_forward_hook(lambda *_: None),
        "optimizer": lambda _, o: o.state.clear(),
        "groups": lambda _, o: o.param_groups[0].update(lr=1.0),
        "random": lambda *_: torch.rand(1),
    }
    for key, leave in traces.items():
        model, optimizer = lived_in()
        before = copy.copy(everything(model, optimizer))
        leave(model, optimizer)
        assert everything(model, optimizer)[key] != before[key], key
