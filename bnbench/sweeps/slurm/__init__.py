"""Runs on a SLURM cluster: the executor, what it asks the cluster, and what a task does there."""
