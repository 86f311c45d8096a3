"""Strict YAML → layers → frozen, validated runs. Imports neither torch nor NumPy.

From file to runs, in reading order: `yaml`, `schema/`, `layers`, `experiments`, `loading`, `plans`.
What is wrong with a file: `faults`, `sentences`, `hints`, `feasible`. What a run is, and what it
reads: `identity`, `datasets`, `custom`, `trust`. What is asked of runs: `metrics`, `claims`,
`registration`. Files written and found: `files`, `drafts`. Where runs are shown: `loggers`.
"""
