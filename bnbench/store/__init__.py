"""Run folders: lock, commit, append, read back, state from evidence.

All file writing of runs lives here. `files`: the single operations. `run_folder`: one run.
`experiment_folder`: the runs of an experiment. `stored_run`: a run as it was found. No torch: `status` and `report` read a thousand
runs without it.
"""

from bnbench.store.experiment_folder import ExperimentFolder, experiments, find_experiment
from bnbench.store.files import Appender
from bnbench.store.run_folder import Checkpoint, Record, RunFolder, State, encode_records
from bnbench.store.stored_run import StoredRun, read_run

__all__ = [
    "Appender",
    "Checkpoint",
    "ExperimentFolder",
    "Record",
    "RunFolder",
    "State",
    "StoredRun",
    "encode_records",
    "experiments",
    "find_experiment",
    "read_run",
]
