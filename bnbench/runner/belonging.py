"""Whether a run's folder holds the run that it is named after. No torch: a sweep asks it of all."""

from __future__ import annotations

from bnbench import store
from bnbench.config import files, identity, loading, schema
from bnbench.errors import ConfigError, StorageError, UsageError


def require_same_identity(folder: store.RunFolder, config: schema.RunConfig) -> list[str]:
    """Refuse a folder whose configuration is not the one that its name was made from.

    Returns what the run in it records otherwise, which decides no number: a line for each key.
    Raises DamagedError where the configuration cannot be read, StorageError where it is another.
    """
    text, wanted = folder.config_text(), files.dump(config)
    if text is None or text == wanted:
        return []
    path = folder.path / "config.yaml"
    try:
        # Of an earlier version, or with other keys that do not decide the numbers.
        kept = loading.load_run(folder.path)
    except (ConfigError, UsageError) as error:
        raise store.damaged(path, f"cannot be read back:\n{error}") from error
    differences = identity.differences(kept, config)
    if differences and wanted.startswith(text):
        raise store.damaged(path, "only its beginning is there")
    if differences:
        first, *others = differences
        more = f" (and {len(others)} more)" if others else ""
        raise StorageError(
            f"{path} is not the configuration that the folder is named after:\n  {first}{more}",
            do="undo the change, or train the run again with --restart",
        )
    # TensorBoard's files are made at any time: bnbench tensorboard --rebuild.
    lacking = [each for each in config.log if each not in (*kept.log, *schema.LOGGERS)]
    later = [f"log: it ended without {', '.join(lacking)}"] if lacking else []
    return identity.recorded_differences(kept, config) + later
