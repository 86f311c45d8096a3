"""Runs on a Ray cluster: the executor, its actors, and which cluster is used."""
