"""The one door from configuration to tensors.

`build_run` reads a `RunConfig` and makes the parts of a `Run`; what it calls knows no
configuration. `random`: a generator for each purpose, derived from the run's seed, so that setups
which share a seed share split, order and initial weights. `dataset`: images. `model`: network,
normalization, optimizer, learning rate. `evaluation`: what is measured, on which images.
`probes`: optional measurements. `run`: all of it put together. `showing`: what a stored run is
shown again.
"""

from bnbench.assemble.dataset import load_dataset
from bnbench.assemble.evaluation import evaluation_steps, norm_batch_size
from bnbench.assemble.model import make_model
from bnbench.assemble.random import derived, generator
from bnbench.assemble.run import Facts, build_run, resolve_device
from bnbench.assemble.showing import training_batches, validation_batches

__all__ = [
    "Facts",
    "build_run",
    "derived",
    "evaluation_steps",
    "generator",
    "load_dataset",
    "make_model",
    "norm_batch_size",
    "resolve_device",
    "training_batches",
    "validation_batches",
]
