"""Strict YAML → frozen, validated runs; expansion of grids; identity. No torch, no NumPy.

schema/      every key, its type, range, default and description
nodes        located trees: values that know their place
strict_yaml  text → located tree
faults       gathering faults; words for what was found
keys         which key belongs to which block and kind; hints for misspellings
check        one block: located tree → model, or faults
merge        patches
overrides    --set, --over
axes         axes and seeds
experiment   the types of an experiment
profiles     named variants of its size
metrics      what claims are about
claims       what is to be judged
load         file + command line → ExperimentConfig
grid         ExperimentConfig → Plan of RunConfigs
feasible     what cannot train
risks        what can, but should be known to be risky
custom       the user's own files
budget       steps per epoch and per run
datasets     counts and shapes of the datasets
identity     what decides the numbers, as a hash; run ids
hparams      the same as a row of a table; the cell of a run
labels       slugs and short names
shipped      the experiments that come with bnbench
dump         back to YAML
json_schema  for editors
"""

from bnbench.config.budget import checkpoint_interval, steps_per_epoch, total_steps
from bnbench.config.claims import doubts, runs_of
from bnbench.config.custom import custom_target
from bnbench.config.datasets import DATASETS, DatasetFacts
from bnbench.config.dump import dump, dump_experiment
from bnbench.config.experiment import Arm, Claim, ExperimentConfig, Setup, Tune
from bnbench.config.feasible import opaque, planned_steps
from bnbench.config.grid import MAX_RUNS, Plan, expand, expand_one
from bnbench.config.hparams import cell, hparams, probes
from bnbench.config.identity import (
    IDENTITY_VERSION,
    differences,
    identity,
    point,
    run_id,
)
from bnbench.config.json_schema import json_schema
from bnbench.config.labels import SHORT_NAMES, in_words, slug
from bnbench.config.load import load_experiment
from bnbench.config.metrics import (
    Cost,
    EndReading,
    GapReading,
    Metric,
    ProbeReading,
    ToTarget,
    UsableLr,
    parse_metric,
    unit,
    worst,
)
from bnbench.config.overrides import Overrides
from bnbench.config.shipped import find_config, find_configs, shipped

__all__ = [
    "DATASETS",
    "IDENTITY_VERSION",
    "MAX_RUNS",
    "SHORT_NAMES",
    "Arm",
    "Claim",
    "Cost",
    "DatasetFacts",
    "EndReading",
    "ExperimentConfig",
    "GapReading",
    "Metric",
    "Overrides",
    "Plan",
    "ProbeReading",
    "Setup",
    "ToTarget",
    "Tune",
    "UsableLr",
    "cell",
    "checkpoint_interval",
    "custom_target",
    "differences",
    "doubts",
    "dump",
    "dump_experiment",
    "expand",
    "expand_one",
    "find_config",
    "find_configs",
    "hparams",
    "identity",
    "in_words",
    "json_schema",
    "load_experiment",
    "opaque",
    "parse_metric",
    "planned_steps",
    "point",
    "probes",
    "run_id",
    "runs_of",
    "shipped",
    "slug",
    "steps_per_epoch",
    "total_steps",
    "unit",
    "worst",
]
