"""bnbench compares normalization setups in convolutional networks.

The rooms, in the order in which data walks through them:

errors     the error tree: what happened, where, what to do
events     the frozen facts that a run can state
config     strict YAML → frozen, validated models; grid expansion; identity; no torch
norms      normalization layers: formula, axes, paper
models     networks that take their normalization as an argument
data       datasets, splits, resident batches, augmentation
optim      parameter groups, learning-rate schedules and rules
probes     measurements that leave no trace
stats      paired differences → intervals, tests, verdicts
store      run folders: lock, commit, append, read back, state from evidence
explain    what a name means: kinds, keys, probes, metrics, findings
sinks      events → TensorBoard, metrics.jsonl, terminal
train      the loop: yields events
assemble   the one door from configuration to tensors
board      TensorBoard on an experiment: files anew, bands over seeds, the way to it
runner     one run from start to result, resumable
diagnosis  a stranger's model, or a stored run: what is wrong in eval mode, and the mend
report     stored runs → tables and figures
sweep      which runs are missing; who trains them
cli        Typer verbs, thin
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnbench.diagnosis import diagnose as diagnose

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`bnbench.diagnose`, imported when it is asked for: `import bnbench` needs no torch."""
    if name == "diagnose":
        from bnbench.diagnosis import diagnose

        return diagnose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
