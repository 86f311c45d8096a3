"""From configuration to tensors: the only package that reads a `RunConfig` and makes a `Run`.

What it calls knows no configuration. `inputs`: images, also handed to another machine, random
numbers, what is measured on which images. `model`: network, normalization, optimizer, learning
rate. `check`: whether networks can be made and trained. `probes`: optional measurements. `run`: all
of it put together, and batches of a run that is diagnosed. `custom`: classes in files of the user's
own, and what these import. `own_images`: images that a function of theirs returns. `foreign`:
networks that are written elsewhere. `swapping`: their norms, exchanged from Python.
"""

from bnbench.assemble.run import Facts as Facts
from bnbench.assemble.run import build_run as build_run
from bnbench.assemble.run import resolve_device as resolve_device
from bnbench.assemble.swapping import swap as swap
