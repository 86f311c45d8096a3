"""Values that are not finite, and where they begin."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import nn

from bnbench.diagnosis.batches import Collected
from bnbench.diagnosis.foreign import Network
from bnbench.diagnosis.result import Finding
from bnbench.diagnosis.route import Route
from bnbench.diagnosis.task import answer
from bnbench.probes.statistics import Autocast

_finding = partial(Finding, name="non-finite", harmful=True)


def non_finite(model: Network, images: Collected) -> Finding | None:
    """The finding for inputs, then for weights and buffers; None where all of them are finite."""
    labels = None if not isinstance(model.route, Route) else model.route.labels
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
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if not tensor.isfinite().all():
            layer, _, part = name.rpartition(".")
            bad = int((~tensor.isfinite()).sum())
            whole = all(bool(each.isfinite().all()) for each in network.parameters())
            return _finding(
                layers=(layer,),
                evidence=f"{name} holds {bad:,} of {tensor.numel():,} values that are not finite",
                do="a batch without finite values passed in training: the weights are whole, "
                "recalibrate (--fix)"
                if whole and part in ("running_mean", "running_var")
                else "training diverged: go back to an earlier checkpoint, lower the learning "
                "rate or clip gradients",
            )
    return None


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
