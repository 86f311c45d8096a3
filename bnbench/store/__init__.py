"""Run folders: lock, commit, append, read back, state from evidence.

All file writing of runs lives here. `files`: the single operations. `run_folder`: one run.
`experiment_folder`: the runs of an experiment. No torch: `status` reads a
thousand runs without it.
"""

from bnbench.store.experiment_folder import (
    ExperimentFolder,
    choose_experiments,
    experiments,
    find_experiment,
    find_run,
)
from bnbench.store.files import Appender, read, write_new
from bnbench.store.run_folder import Checkpoint, Record, RunFolder, State, encode_records

__all__ = [
    "Appender",
    "Checkpoint",
    "ExperimentFolder",
    "Record",
    "RunFolder",
    "State",
    "choose_experiments",
    "encode_records",
    "experiments",
    "find_experiment",
    "find_run",
    "read",
    "write_new",
]
