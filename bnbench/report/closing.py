"""What closes a sweep in the terminal: the question, what was compared, how it came out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from bnbench import config as configuration
from bnbench.config import ExperimentConfig, run_id, schema
from bnbench.errors import StorageError
from bnbench.report.comparison import Replicate, comparison_table, setups_table
from bnbench.store import ExperimentFolder, Record, read


def closing_tables(
    experiment: ExperimentConfig, runs: Sequence[schema.RunConfig], folder: ExperimentFolder
) -> list[RenderableType]:
    """To be printed one below the other, at most 80 columns wide. Damaged runs count as missing."""
    shown: list[RenderableType] = []
    if experiment.question:
        shown.append(Text(experiment.question))
    read = [_read(config, folder) for config in runs]
    if len({config.setup for config in runs}) > 1:
        shown.append(setups_table([manifest for manifest, result in read if manifest and result]))
    replicates = [
        Replicate(config.setup, configuration.point(config), result)
        for config, (_, result) in zip(runs, read, strict=True)
    ]
    shown.append(comparison_table(replicates, tune=experiment.tune))
    return shown


def _read(
    config: schema.RunConfig, folder: ExperimentFolder
) -> tuple[Record | None, Record | None]:
    found = read(folder.run(run_id(config)))
    try:
        return found.manifest, None if found.result is None else found.result.as_record()
    except StorageError:
        return None, None
