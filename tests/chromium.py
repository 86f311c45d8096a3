"""Headless Chromium, driven through its debugging protocol: as much of it as tests need.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.processes import LIMIT, SHARED, started, wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--remote-debugging-port=0",
)
# TensorBoard's older tabs keep what they draw in shadow trees, which selectors do not enter.
DEEP = """
const deep = (selector, root = document) => [
  ...(root.shadowRoot ? deep(selector, root.shadowRoot) : []),
  ...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].flatMap(
    each => each.shadowRoot ? deep(selector, each.shadowRoot) : []),
];
const shown = (selector, root = document) =>
  deep(selector, root).filter(each => each.getClientRects().length > 0);
"""
# The ratio of contrast between two colours as CSS has them: WCAG 2.2, "contrast ratio".
CONTRAST = """
((one, other) => {
  const light = color => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(Number)
      .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
})"""


def program() -> str:
    """Where Chromium is. Without it the test is skipped; with BNBENCH_BROWSER=required it fails."""
    found = next((found for name in NAMES if (found := shutil.which(name))), None)
    if found is None:
        message = "there is no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("BNBENCH_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return found


class Page:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._sent = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Go to an address; what is drawn there takes its time."""
        self._call("Page.navigate", url="about:blank")  # so that a change after # counts, too
        self._call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, in which `deep` and `shown` find elements."""
        answer = self._call(
            "Runtime.evaluate",
            expression=f"(() => {{ {DEEP} return ({expression}); }})()",
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression as soon as it is truthy."""
        deadline = time.monotonic() + LIMIT
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.1)

    def click(self, element: str) -> None:
        """Press and release the mouse on the element of a JavaScript expression."""
        x, y = self.wait_for(
            f"(each => each && (box => [box.x + box.width / 4, box.y + box.height / 2])"
            f"(each.getBoundingClientRect()))({element})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int) -> None:
        """Look at it in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, *, dark: bool, media: str = "screen") -> None:
        """Look at it as somebody who prefers dark pages, or on paper."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def picture(self, path: Path) -> None:
        """Write what the page looks like as a PNG."""
        answer = self._call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=LIMIT))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"]["text"])
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer["error"]
                return answer["result"]


@contextmanager
def browser(folder: Path, *, size: tuple[int, int] = (1500, 1000)) -> Iterator[Page]:
    """A browser that keeps its files in `folder`, and its page."""
    command = [program(), *FLAGS, f"--user-data-dir={folder}", "--window-size={},{}".format(*size)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"HOME": str(folder)}
    with started(*command, "about:blank", seconds=SHARED, env=environment, **quiet) as process:
        file = folder / "DevToolsActivePort"
        wait_until(lambda: file.exists() and file.read_text().strip(), process=process)
        port = int(file.read_text().splitlines()[0])
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=LIMIT) as answer:
            (page,) = [each for each in json.load(answer) if each["type"] == "page"]
        with connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
            yield Page(connection)
