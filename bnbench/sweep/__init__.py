"""Which runs are missing, and who trains them. No torch: only workers import it.

- `experiments`: a sweep from its file to its results; chooses the executor
- `schedule`: what is missing, in which order, what to do about failures and deaths
- `forecast`: what `--dry-run` prints; `costs`: what runs will cost, from those that are done
- `dispatch`: the one loop that submits jobs and takes answers; what is found out before the first
  run
- `jobs`: what an executor can be asked to do, and what it answers
- `workers`: the executor of this machine, a spawned process for each worker; `worker`: its inside
- `shipping`: for executors whose workers share no disk with the driver
- `cores`: how many cores this process may use, and how many workers
"""
