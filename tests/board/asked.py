"""TensorBoard's web application, asked without a socket, through both of its loaders."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tensorboard import program
from tensorboard.backend import application
from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
from tensorboard.data.server_ingester import ExistingServerDataIngester, get_server_binary
from werkzeug.test import Client

from tests.processes import LIMIT, SHARED, started, wait_until


class Asked:
    """TensorBoard's web application on a folder, all of it loaded."""

    def __init__(self, folder: Path, loader: str) -> None:
        board = program.TensorBoard()
        once = ["--reload_interval", "0", "--reload_task", "blocking"]
        board.configure(["tensorboard", "--logdir", str(folder), *once])
        self._started = ExitStack()
        ingester: LocalDataIngester | ExistingServerDataIngester
        if loader == "slow":
            ingester = LocalDataIngester(board.flags)
            ingester.start()
        else:
            port = self._started.enter_context(data_server(folder))
            ingester = ExistingServerDataIngester(
                f"localhost:{port}", channel_creds_type=board.flags.grpc_creds_type
            )
        self._client = Client(
            application.TensorBoardWSGIApp(
                board.flags,
                board.plugin_loaders,
                ingester.data_provider,
                board.assets_zip_provider,
                getattr(ingester, "deprecated_multiplexer", None),
            )
        )

    def close(self) -> None:
        """End the loader that is a process of its own, when nobody asks it any more."""
        for thread in threading.enumerate():
            if thread.name == "ProjectorPluginIsActiveThread":  # begun by a route, and not joined
                thread.join(LIMIT)
        self._started.close()

    def get(self, route: str, **query: str) -> Any:
        """The JSON that a route answers."""
        answer = self._client.get(f"/data/{route}", query_string=query)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)

    def post(self, route: str, **body: Any) -> Any:
        """The JSON that a route answers to JSON."""
        answer = self._client.post(f"/data/{route}", json=body)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)


@contextmanager
def data_server(folder: Path) -> Iterator[int]:
    """TensorBoard's faster loader, once it has loaded all there is; its port.

    Not started by TensorBoard itself, which leaves it to the end of the process to clean up.
    """
    with tempfile.TemporaryDirectory() as place:
        file, said = Path(place) / "port", Path(place) / "said"
        command = [get_server_binary().path, f"--logdir={folder}", "--reload=once", "--port=0"]
        command += ["--verbose", f"--port-file={file}"]
        with said.open("w") as log, started(*command, seconds=SHARED, stderr=log) as server:
            wait_until(lambda: "Finished load cycle" in said.read_text(), process=server)
            yield int(file.read_text())
