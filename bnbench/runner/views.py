"""What shows a run while it trains: TensorBoard's files and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch import Tensor

from bnbench.assemble import Facts
from bnbench.config import schema
from bnbench.events import Event
from bnbench.runner.settings import Draw, MakeView
from bnbench.sinks import View
from bnbench.store import RunFolder


class Views:
    """TensorBoard and the terminal: what fails is left out with one warning."""

    def __init__(
        self,
        config: schema.RunConfig,
        folder: RunFolder,
        facts: Facts,
        first_batch: Callable[[], tuple[Tensor, Tensor]],
        *,
        view: MakeView | None,
        announce: Callable[[str], None],
    ) -> None:
        """`folder`: begun, since TensorBoard's view is made from what it holds."""
        self._announce = announce
        self._views: list[View] = []
        with self._harmless(None):
            self._views.append(_tensorboard(folder, facts, *first_batch()))
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
                with suppress(Exception):
                    view.close()
            self._announce(
                f"warning: a view of the run failed and is left out ({error}); training goes on"
            )


def add_pictures(folder: RunFolder, draw: Draw, announce: Callable[[str], None]) -> None:
    """Show what the probes of a finished run have read; the run itself cannot suffer from it."""
    from bnbench.board.views import open_view  # slow to import

    try:
        folder.keep_pictures(draw(folder))
        open_view(folder).close()
    except Exception as error:
        announce(f"warning: {folder.name}: no pictures of its probes ({error})")


def _tensorboard(folder: RunFolder, facts: Facts, images: Tensor, labels: Tensor) -> View:
    """TensorBoard's files anew, with a picture of the first images (n, C, H, W) as trained."""
    from bnbench.board.views import open_view  # slow to import
    from bnbench.sinks.tensorboard import first_images

    names = [facts.classes[label] for label in labels.tolist()]
    folder.keep_first_batch(first_images(images.cpu().numpy(), names))
    return open_view(folder)
