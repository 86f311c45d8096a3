"""Run folders: lock, commit, append, read back, state from evidence.

All file writing of runs is here. `files`: the single operations. `record`: what the files of a run
say. `run_folder`: one run. `state`: how it stands. `experiment_folder`: the runs of an experiment.
No torch: `status` reads a thousand runs without it.
"""

from bnbench.store.experiment_folder import ExperimentFolder as ExperimentFolder
from bnbench.store.experiment_folder import choose_experiments as choose_experiments
from bnbench.store.experiment_folder import experiments as experiments
from bnbench.store.experiment_folder import find_experiment as find_experiment
from bnbench.store.experiment_folder import find_run as find_run
from bnbench.store.files import Appender as Appender
from bnbench.store.files import replace_content as replace_content
from bnbench.store.files import write_new as write_new
from bnbench.store.record import Record as Record
from bnbench.store.record import Result as Result
from bnbench.store.record import Score as Score
from bnbench.store.record import cell_of as cell_of
from bnbench.store.record import damaged as damaged
from bnbench.store.record import encode_records as encode_records
from bnbench.store.record import other_run as other_run
from bnbench.store.run_folder import RunFolder as RunFolder
from bnbench.store.state import STATES as STATES
from bnbench.store.state import RunRecord as RunRecord
from bnbench.store.state import State as State
from bnbench.store.state import examined as examined
from bnbench.store.state import read as read
from bnbench.store.state import set_aside as set_aside
