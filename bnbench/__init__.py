"""bnbench compares normalization setups in convolutional networks.

The packages, from the lowest level to the highest; bnbench/README.md draws how data flows:

catalogue  what `diagnose` may find: what it looks like, its cause, what to do
errors     the errors that users see: what happened, where, what to do
events     the facts that a run can state, and the moments at which they hold
garbage    when Python looks for cycles, which takes time in a large process
machine    cores and memory that this process may use; the cache folder
palette    the colour of each setup, in figures and in TensorBoard
regular    reading files that others have written: regular ones, up to a size
wording    words for error texts and tables: counts, lists, the name that was meant
config     YAML to validated models; crossing of setups, axes and seeds; identity; no torch
norms      normalization layers: formula, axes, paper
models     networks that take their normalization as an argument, or have it exchanged
data       datasets, splits, batches, augmentation; `bundled/` holds the shipped images
optim      parameter groups, learning-rate schedules and rules
probes     measurements that leave no trace; one file a probe
replay     a training step as its kernels, captured once: the same bits, less around them
stats      paired differences to intervals, tests, verdicts; NumPy and SciPy, no files
guard      code of the user's own: a sentence for what it raises; the process as it was
store      run folders: lock, commit, append, read; all file writing but TensorBoard's
explain    what a name means: kinds, keys, probes, metrics, findings, functions
sinks      facts to metrics.jsonl, TensorBoard, other loggers, terminal
train      the training loop
assemble   from configuration to model, batches, optimizer, probes
board      TensorBoard for an experiment: rewrite event files, average over seeds, start it
diagnosis  a foreign model, or a stored run: what is wrong in eval mode, and the fix
report     stored runs to tables, figures, verdicts, the page
runner     one run from start to result, resumable
sweeps     which study is continued; which runs are missing, in which order; who trains them
watching   a training loop of the user's own: what its normalization layers do
callbacks  the same in the loops of Lightning, Hugging Face's Trainer and Accelerate
notebook   from Python: train a study, read one, show it in a notebook
cli        the commands; heavy packages are imported inside them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnbench.assemble.swapping import swap as swap
    from bnbench.diagnosis.diagnose import diagnose as diagnose
    from bnbench.notebook import Study as Study
    from bnbench.notebook import open as open
    from bnbench.notebook import sweep as sweep
    from bnbench.watching.watch import watch as watch

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The functions for Python, imported on first use, so that `import bnbench` needs no torch."""
    if name == "diagnose":
        from bnbench.diagnosis import diagnose

        return diagnose
    if name == "watch":
        from bnbench.watching import watch

        return watch
    if name == "swap":
        from bnbench.assemble import swap

        return swap
    if name in ("Study", "open", "sweep"):
        from bnbench import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
