"""Which layer's running statistics are to blame for the eval-mode gap.

    blame_l = L(all layers on running statistics) − L(layer l on batch statistics, the others not)

in nats of cross entropy, on the same images: like the gap (running minus batch), positive where
running statistics hurt. "network" puts all layers on batch statistics at once: the gap itself. It
is not the sum of the others: a layer after one whose statistics are off is blamed as well, since
batch statistics there undo the earlier error. As a rule the first layer with much blame is the
cause.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from bnbench.events import Reading
from bnbench.probes import NETWORK, readings
from bnbench.probes.statistics import Discrepancy, Sample, batch_norm_layers, evaluating


def read(model: nn.Module, how: Discrepancy, images: Sample) -> list[Reading]:
    """`loss` of each layer with batch statistics and of the network; 0 without such layers."""
    layers = batch_norm_layers(model)
    found: dict[str, dict[str, float]] = {}
    if layers:
        with evaluating(model):
            running = F.cross_entropy(*how.forward(model, images, how.chunked_size)).item()
            for name, chosen in [
                *((name, {name: layer}) for name, layer in layers.items()),
                (NETWORK, layers),
            ]:
                logits, labels, _ = how.under_batch(model, images, chosen)
                found[name] = {"loss": running - F.cross_entropy(logits, labels).item()}
    return readings("gap_by_layer", found or {NETWORK: {"loss": 0.0}})
