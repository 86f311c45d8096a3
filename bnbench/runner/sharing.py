"""Identical runs of several experiments: one is trained, the others take it over."""

from __future__ import annotations

from bnbench import store
from bnbench.config import files, identity, loading, plans, schema
from bnbench.errors import BnbenchError, StorageError
from bnbench.runner.settings import Settings

READ_AT = ("evaluations", "evaluation_images", "log_every")
"""Keys of `train` that decide when a run is measured, and not what is trained."""


def take_over(
    config: schema.RunConfig,
    folder: store.RunFolder,
    settings: Settings,
    fingerprint: store.Record,
) -> store.Result | None:
    """The result of the same run in another experiment of the settings, made this folder's own.

    The same: identity, fingerprint, and everything that decides when it was measured. None where
    there is no such run. Killed at any moment, the folder is one of a run that has just begun.
    """
    for sibling in settings.siblings:
        other = store.read(store.ExperimentFolder(sibling).run(identity.run_id(config)))
        source = other.folder
        try:
            manifest, result = other.manifest, other.result
            if result is None or manifest is None or source.path == folder.path:
                continue
            if manifest["fingerprints"] != [fingerprint] or not _same(config, source):
                continue
            checkpoint = source.checkpoint()
            last = [event["event"] for event in other.events(without=("step", "eval"))][-1:]
            if checkpoint is None or last not in (["finished"], ["diverged"]):
                continue
            ours = manifest | {
                "run": folder.name,
                "experiment": config.experiment,
                "setup": config.setup,
                "cell": identity.cell(config),
                "point": identity.point(config),
                "hparams": identity.hparams(config),
                "taken_over_from": f"{sibling.name}/{source.name}",
            }
            folder.begin(config_text=files.dump(config), manifest=ours)
            folder.take_over(source, checkpoint)
        except (StorageError, KeyError):
            continue  # a damaged run is not taken over
        folder.finish(result)
        _show(folder, settings)
        settings.announce(f"{folder.name} is {sibling.name}/{source.name}: taken over")
        return result
    return None


def _show(folder: store.RunFolder, settings: Settings) -> None:
    """Write TensorBoard's files of the run: a view, whose failure loses nothing."""
    from bnbench.board.views import open_view  # slow to import

    try:
        open_view(folder).close()
    except BnbenchError as error:
        settings.announce(f"warning: {folder.name} has no TensorBoard files: {error.what}")


def _same(config: schema.RunConfig, source: store.RunFolder) -> bool:
    """Whether the run of that folder is this one, and was measured at the same points."""
    try:
        path = source.path / "config.yaml"
        other = plans.expand(loading.load_experiment(path)).only()
    except BnbenchError:
        return False
    return (
        identity.identity(other) == identity.identity(config)
        and other.probes == config.probes
        and all(getattr(other.train, key) == getattr(config.train, key) for key in READ_AT)
    )
