"""Strict YAML → layers → frozen, validated runs. Imports neither torch nor NumPy.

yaml        text → data and the place of each key and value
schema/     every key of a file: type, range, default, description; the JSON Schema
sentences   what pydantic found, in sentences
faults      where faults are; words for what was found
layers      patches: merging, and the origin of a value
load        file + command line → ExperimentConfig
experiment  the types of an experiment; axes
plan        ExperimentConfig → Plan of RunConfigs
feasible    what cannot train, and what can but is risky
metrics     what claims are about
claims      what is to be judged
identity    what decides the numbers, as a hash; run ids, labels, table rows
datasets    counts and shapes of the datasets; steps per epoch and per run
custom      the user's own files
files       the shipped experiments; configurations written back as YAML
"""
