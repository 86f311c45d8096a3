"""Values that are not finite, and where they begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bnbench.catalogue import FINDINGS
from bnbench.diagnosis.answers import answer
from bnbench.diagnosis.batches import Collected
from bnbench.diagnosis.foreign import Network
from bnbench.diagnosis.result import Finding
from bnbench.diagnosis.route import Route
from bnbench.probes.statistics import Autocast
from bnbench.running_statistics import STATISTICS
from bnbench.wording import counted

_finding = partial(Finding, name="non-finite", harmful=True)


def non_finite(
    model: Network, collected: Sequence[Collected], calls: Sequence[str]
) -> Finding | None:
    """The finding for inputs, then for weights and buffers; None where all of them are finite.
    `calls`: layers in the order of the pass."""
    labels = None if not isinstance(model.route, Route) else model.route.labels
    for images in collected:
        wrong = sum(
            int((~each.isfinite()).reshape(len(each), -1).any(1).sum())
            for path, each in images.tensors()
            if path != labels and each.ndim and each.is_floating_point()
        )
        if wrong:
            return _finding(
                evidence=f"{wrong:,} of {len(images):,} inputs of the {images.loader} loader hold "
                "values that are not finite",
                do="look at how the inputs are read and scaled (a division by a standard deviation "
                "of 0?)",
            )
    network = model.network
    bad = {
        name: tensor
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
        if not tensor.isfinite().all()
    }
    if not bad:
        return None
    layers = {name.rpartition(".")[0]: None for name in bad}
    if all(name.rpartition(".")[2] in STATISTICS for name in bad):
        first = next((layer for layer in calls if layer in layers), next(iter(layers)))
        return _overflowed(first, list(layers), bad)
    name, tensor = next(iter(bad.items()))
    return _finding(
        layers=(name.rpartition(".")[0],),
        evidence=f"{name} holds {_count(tensor)} that are not finite",
        do="training diverged: go back to an earlier checkpoint, lower the learning rate or clip "
        "gradients",
    )


def _count(tensor: Tensor) -> str:
    return f"{int((~tensor.isfinite()).sum()):,} of {tensor.numel():,} values"


def _overflowed(first: str, layers: Sequence[str], bad: Mapping[str, Tensor]) -> Finding:
    """Running statistics that are not finite between weights that are."""
    keys = [f"{first}.{part}".removeprefix(".") for part in STATISTICS]
    key = next(each for each in reversed(keys) if each in bad)
    more = len(layers) - 1
    others = f", and so are those of {counted(more, 'layer')} more" if more else ""
    do = FINDINGS["overflowed-variance"].do
    precision = ""
    if bad[key].dtype == torch.float16:
        precision = " (float16 ends at 65,504)"
        do = "keep BatchNorm layers in float32 (layer.float()), or use bfloat16; then " + do
    return Finding(
        name="overflowed-variance",
        harmful=True,
        layers=(first, *(each for each in layers if each != first)),
        evidence=f"{_count(bad[key])} of {key} are not finite{precision}{others}; all weights are "
        "finite",
        do=do,
    )


def non_finite_output(model: Network, images: Collected, autocast: Autocast) -> Finding | None:
    """The finding for a model whose outputs are not all finite: the first layer, in the order of
    the pass, whose outputs are not, the innermost one."""
    found: list[str] = []

    def look(name: str, _: nn.Module, __: Any, output: Any) -> None:
        part = answer(output)
        if part is not None and not part.isfinite().all():
            found.append(name)

    with ExitStack() as hooks:
        for name, module in (*model.network.named_modules(), ("", model)):
            if not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                hooks.enter_context(module.register_forward_hook(partial(look, name)))
        for positions in images.as_they_come():
            with autocast():
                model(images.batch(positions))
            if found:  # the innermost layer first
                return _finding(
                    layers=(found[0],),
                    evidence="all weights are finite, but the outputs of "
                    f"{found[0] or 'the model'} are not",
                    do="look at its inputs: a value too large for the number format (fp16?), a "
                    "logarithm or a division",
                )
    return None
