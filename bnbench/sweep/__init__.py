"""Which runs are missing, and who trains them. No torch: only workers import it.

- `experiments`: a sweep from its file to its results; chooses the executor
- `schedule`: what is missing, in which order, what to do about failures and deaths
- `forecast`: what `--dry-run` prints
- `dispatch`: the one loop that submits jobs and takes answers
- `jobs`: what an executor can be asked to do, what it answers, and how a worker does it
- `workers`: the executor of this machine, a spawned process for each worker
- `shipping`: for executors whose workers share no disk with the driver
- `cores`: how many cores this process may use, and how many workers
"""
