"""Measurements that leave no trace, one file a probe.

`discrepancy`: loss and accuracy under running, batch and population statistics, always logged.
`statistics`: how a model is put under each kind of statistics, and taken back.
"""

from bnbench.probes.discrepancy import Autocast, Discrepancy, Sample, Where
from bnbench.probes.statistics import (
    PooledStatistics,
    batch_norm_layers,
    batch_statistics,
    evaluating,
    given_statistics,
)

__all__ = [
    "Autocast",
    "Discrepancy",
    "PooledStatistics",
    "Sample",
    "Where",
    "batch_norm_layers",
    "batch_statistics",
    "evaluating",
    "given_statistics",
]
