"""Run folders: lock, commit, append, read back, state from evidence.

All file writing of runs is here. `files`: the single operations. `record`: what the files of a run
say. `run_folder`: one run. `experiment_folder`: the runs of an experiment. No torch: `status` reads
a thousand runs without it.
"""

from bnbench.store.experiment_folder import (
    ExperimentFolder,
    choose_experiments,
    experiments,
    find_experiment,
    find_run,
)
from bnbench.store.files import Appender, write_new
from bnbench.store.record import (
    STATES,
    Record,
    Result,
    RunRecord,
    Score,
    State,
    cell_of,
    encode_records,
    read,
)
from bnbench.store.run_folder import Checkpoint, RunFolder

__all__ = [
    "STATES",
    "Appender",
    "Checkpoint",
    "ExperimentFolder",
    "Record",
    "Result",
    "RunFolder",
    "RunRecord",
    "Score",
    "State",
    "cell_of",
    "choose_experiments",
    "encode_records",
    "experiments",
    "find_experiment",
    "find_run",
    "read",
    "write_new",
]
