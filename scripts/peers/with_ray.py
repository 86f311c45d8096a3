"""The sweep with Ray Tune: a function, a grid, its own loggers as they come; a Ray of its own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import grid
import ray
import usual
from ray import tune


def trial(config: dict) -> None:
    with tempfile.TemporaryDirectory() as logs:
        tune.report(usual.train(**config, epochs=grid.EPOCHS, logs=logs))


if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False)
    tuner = tune.Tuner(
        trial,
        param_space={"root": sys.argv[1]}
        | {name: tune.grid_search(values) for name, values in grid.GRID.items()},
        tune_config=tune.TuneConfig(reuse_actors=True),  # else each trial starts a process
        run_config=tune.RunConfig(storage_path=str(Path.cwd() / "ray"), verbose=0),
    )
    for result in tuner.fit():
        print({name: result.metrics[name] for name in ("steps", "accuracy")})
