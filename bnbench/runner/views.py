"""What shows a run while it trains: TensorBoard's files and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

from bnbench import config as configuration
from bnbench.build import Facts
from bnbench.config import RunConfig
from bnbench.events import Event
from bnbench.runner.settings import MakeView
from bnbench.sinks import View, from_record
from bnbench.store import RunFolder


class Views:
    """TensorBoard and the terminal: what fails is left out with one warning."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        facts: Facts,
        started: float,
        *,
        view: MakeView | None,
        announce: Callable[[str], None],
    ) -> None:
        self._announce = announce
        self._views: list[View] = []
        with self._harmless(None):
            self._views.append(_tensorboard_rebuilt(config, folder, facts, started))
        if view is not None:
            with self._harmless(None):
                self._views.append(view(config, facts.total_steps))

    def take(self, events: list[Event]) -> None:
        """Show events of one moment."""
        for view in list(self._views):
            with self._harmless(view):
                view.take(events)

    def close(self) -> None:
        """Let go of all of them."""
        for view in list(self._views):
            with self._harmless(view):
                view.close()

    @contextmanager
    def _harmless(self, view: View | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if view is not None:
                self._views.remove(view)
            self._announce(
                f"warning: a view of the run failed and is left out ({error}); training goes on"
            )


def _tensorboard_rebuilt(
    config: RunConfig, folder: RunFolder, facts: Facts, started: float
) -> View:
    """TensorBoard's files anew, from the events that are there."""
    from bnbench.sinks.tensorboard import TensorBoardSink  # slow to import

    folder.clear_views()
    view = TensorBoardSink(
        folder.path,
        started=started,
        examples_per_epoch=facts.steps_per_epoch * config.data.batch_size,
        reports=-(-facts.total_steps // config.train.log_every),
        about=f"```yaml\n{configuration.dump(config)}```",
    )
    for _, moment in groupby(folder.records(), key=lambda record: record["step"]):
        view.take([from_record(record) for record in moment])
    return view
