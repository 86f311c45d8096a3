"""Where infinities and NaN begin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnbench.diagnosis.evidence import own_name
from bnbench.diagnosis.foreign import Logits
from bnbench.diagnosis.loader import Collected
from bnbench.diagnosis.result import Finding
from bnbench.probes.statistics import evaluating


def non_finite(model: Logits, images: Collected) -> Finding | None:
    """The finding, with the layer where it begins; None where all is finite.

    Inputs first, then weights and buffers, then the outputs of layers in the order of the pass.
    """
    wrong = (~images.x.isfinite()).flatten(1).any(1).sum().item()
    if wrong:
        return Finding(
            name="non-finite",
            harmful=True,
            evidence=f"{wrong:,} of {len(images):,} inputs of the {images.loader} loader hold "
            "values that are not finite",
            do="look at how the inputs are read and scaled (a division by a standard deviation "
            "of 0?)",
        )
    for name, tensor in (*model.network.named_parameters(), *model.network.named_buffers()):
        if not tensor.isfinite().all():
            layer, _, part = name.rpartition(".")
            bad = int((~tensor.isfinite()).sum())
            running = part in ("running_mean", "running_var")
            return Finding(
                name="non-finite",
                harmful=True,
                layers=(layer,),
                evidence=f"{name} holds {bad:,} of {tensor.numel():,} values that are not finite",
                do="a batch without finite values passed in training: the weights are whole, "
                "recalibrate (--fix)"
                if running and _all_finite(model.network.parameters())
                else "training diverged: go back to an earlier checkpoint, lower the learning "
                "rate or clip gradients",
            )
    beginning = _where_it_begins(model, images)
    if beginning is None:
        return None
    return Finding(
        name="non-finite",
        harmful=True,
        layers=(beginning,),
        evidence=f"all weights are finite, but the outputs of {beginning or 'the model'} are not",
        do="look at its inputs: a value too large for the number format (fp16?), a logarithm "
        "or a division",
    )


def _all_finite(tensors: Any) -> bool:
    return all(bool(each.isfinite().all()) for each in tensors)


def _where_it_begins(model: Logits, images: Collected) -> str | None:
    """The first layer, innermost, whose output is not finite; None: all outputs are."""
    found: list[str] = []
    handles: list[RemovableHandle] = []

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def look(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return module.register_forward_hook(look)

    try:
        for name, module in model.named_modules():
            handles.append(watch(own_name(name), module))
        with evaluating(model):
            sample = images.in_order(torch.arange(len(images)))
            for x, _ in sample.batches(images.batch_size):
                model(x)
                if found:
                    return found[0]
    finally:
        for handle in handles:
            handle.remove()
    return None
