"""Which runs are missing, and who trains them. No torch: that is in the workers.

- `schedule`: the policy: what is missing, in which order, what to do about failures and deaths
- `beforehand`: what is found out before the first run
- `jobs`: what an executor can be asked to do, and what it answers
- `workers`: the executor of this machine, one spawned process per worker; `worker`: its inside
- `costs`: what runs will cost, from those that are done; `forecast`: what
  `--dry-run` prints
- `cores`: how many cores this process may use, and how many workers
"""

from bnbench.sweep.cores import may_use_gpu, usable_cores, workers_for
from bnbench.sweep.forecast import Forecast, Planned, as_lines, as_record, forecast
from bnbench.sweep.jobs import Executor, Terms
from bnbench.sweep.schedule import Outcome, sweep
from bnbench.sweep.workers import Workers

__all__ = [
    "Executor",
    "Forecast",
    "Outcome",
    "Planned",
    "Terms",
    "Workers",
    "as_lines",
    "as_record",
    "forecast",
    "may_use_gpu",
    "sweep",
    "usable_cores",
    "workers_for",
]
