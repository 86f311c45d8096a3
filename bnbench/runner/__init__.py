"""One run from start to result: held, resumable, committed.

`execution`: the order on disk that makes a kill at any moment harmless. `settings`: how runs are
executed and stopped, on which cores, and how one ended; without torch, for those who only hand out
runs. `threads`: how many a run takes. `provenance`: versions and fingerprint; identical runs of
several experiments. `views`: TensorBoard and other loggers. `rehearsal`: a few steps before a
sweep, to see whether a network can train and what a run will cost.
"""
