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
sinks      events → TensorBoard, metrics.jsonl, terminal
train      the loop: yields events
build      the one door from configuration to tensors
board      TensorBoard on an experiment: files anew, bands over seeds, the way to it
runner     one run from start to result, resumable
report     stored runs → tables and figures
sweep      which runs are missing; who trains them
cli        Typer verbs, thin
"""

__version__ = "0.1.0"
