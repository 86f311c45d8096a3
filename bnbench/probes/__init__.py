"""Measurements that leave no trace, one file a probe.

`discrepancy`: loss and accuracy under running, batch and population statistics, always logged.
Optional: `running_error`, `gap_by_layer`, `decomposition`, `batch_noise` (statistics);
`activation_drift`, `gradient_shift` (covariate shift); `landscape`, `step_stability`,
`effective_lr` (step sizes); `histograms`. What they share: `statistics`, how a model is put under
each kind of statistics, and taken back; `stand_in`, a copy that does what training would do;
`readings`, events.
"""

from bnbench.probes.activation_drift import activation_drift
from bnbench.probes.batch_noise import batch_noise, companionship
from bnbench.probes.decomposition import decomposition
from bnbench.probes.discrepancy import Autocast, Discrepancy, Sample
from bnbench.probes.effective_lr import effective_lr
from bnbench.probes.gap_by_layer import gap_by_layer
from bnbench.probes.gradient_shift import gradient_shift
from bnbench.probes.histograms import histograms
from bnbench.probes.landscape import landscape
from bnbench.probes.readings import NETWORK, Where
from bnbench.probes.running_error import running_error, statistics_error
from bnbench.probes.stand_in import AsInTraining, cannot_be_copied, trained_layers
from bnbench.probes.statistics import (
    PooledStatistics,
    batch_norm_layers,
    batch_statistics,
    evaluating,
    given_statistics,
)
from bnbench.probes.step_stability import step_stability

__all__ = [
    "NETWORK",
    "AsInTraining",
    "Autocast",
    "Discrepancy",
    "PooledStatistics",
    "Sample",
    "Where",
    "activation_drift",
    "batch_noise",
    "batch_norm_layers",
    "batch_statistics",
    "cannot_be_copied",
    "companionship",
    "decomposition",
    "effective_lr",
    "evaluating",
    "gap_by_layer",
    "given_statistics",
    "gradient_shift",
    "histograms",
    "landscape",
    "running_error",
    "statistics_error",
    "step_stability",
    "trained_layers",
]
