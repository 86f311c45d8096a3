"""Run folders: lock, commit, append, read back, state from evidence.

All file writing of runs is here. `files`: the single operations. `record`: what the files of a run
say. `run_folder`: one run. `state`: how it stands. `experiment_folder`: the runs of an experiment.
No torch: `status` reads a thousand runs without it.
"""

from bnbench.store.experiment_folder import (
    ExperimentFolder,
    choose_experiments,
    experiments,
    find_experiment,
    find_run,
)
from bnbench.store.files import Appender, replace_content, write_new
from bnbench.store.record import Record, Result, Score, cell_of, damaged, encode_records, other_run
from bnbench.store.run_folder import RunFolder
from bnbench.store.state import STATES, RunRecord, State, examined, read, set_aside
