"""Test images that are shifted against training's, under each kind of statistics.

    lost = accuracy of the images as they are − shifted, both under running statistics
    batch_gain = accuracy under batch − under running statistics, of the same shifted images
    recalibrated_gain = accuracy under the statistics of all shifted images − under running ones

and the accuracies `running`, `batch` and `recalibrated`; all in percentage points. The place of the
layer is taken by the shift and its grade, noise.1 to brightness.3, and by `none`. Recalibrated are
means and variances alone, without labels: adaptive BN (Li et al. 2016,
https://arxiv.org/abs/1603.04779, section 3.2; for corruptions Schneider et al. 2020,
https://arxiv.org/abs/2006.16971, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from bnbench.events import Reading
from bnbench.probes import readings
from bnbench.probes.statistics import (
    Discrepancy,
    Sample,
    batch_norm_layers,
    evaluating,
    given_statistics,
)

UNSHIFTED = "none"


def read(model: nn.Module, how: Discrepancy, samples: Mapping[str, Sample]) -> list[Reading]:
    """All of it for each sample, by name; one is called `none`, the images as they are."""
    found: dict[str, dict[str, float]] = {}
    with evaluating(model):
        for name, sample in samples.items():
            running, labels = how.forward(model, sample, how.pass_size)
            batch = recalibrated = running
            if batch_norm_layers(model):
                batch, _, pools = how.under_batch(model, sample)
                with given_statistics(model, pools):
                    recalibrated, _ = how.forward(model, sample, how.pass_size)
            found[name] = {
                "running": _right(running, labels),
                "batch": _right(batch, labels),
                "recalibrated": _right(recalibrated, labels),
            }
    for each in found.values():
        each["lost"] = found[UNSHIFTED]["running"] - each["running"]
        each["batch_gain"] = each["batch"] - each["running"]
        each["recalibrated_gain"] = each["recalibrated"] - each["running"]
    return readings("shifted_images", found)


def _right(logits: Tensor, labels: Tensor) -> float:
    return 100 * (logits.argmax(1) == labels).sum().item() / len(labels)
