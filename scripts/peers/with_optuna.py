"""The sweep with Optuna: the grid's points enqueued, two processes that share a journal, as its
documentation advises (its `n_jobs` are threads)."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor

import grid
import optuna
import usual
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def objective(trial: optuna.Trial) -> float:
    point = {name: trial.suggest_categorical(name, values) for name, values in grid.GRID.items()}
    logs = f"logs/{trial.number}"
    trained = usual.train(sys.argv[1], **point, epochs=grid.EPOCHS, logs=logs)
    print(trained, flush=True)
    return trained["accuracy"]


def study() -> optuna.Study:
    storage = JournalStorage(JournalFileBackend("journal.log"))
    return optuna.create_study(
        study_name="norms", storage=storage, load_if_exists=True, direction="maximize"
    )


def work() -> None:
    study().optimize(objective, n_trials=len(grid.points()) // 2)


if __name__ == "__main__":
    for point in grid.points():
        study().enqueue_trial(point)
    with ProcessPoolExecutor(2) as pool:
        for each in [pool.submit(work) for _ in range(2)]:
            each.result()
