"""A small client of Chromium's DevTools protocol over pipes: opens a file, evaluates, takes pictures."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

PATIENCE = 60.0  # seconds
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions"
QUIET = "--disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe"


def find() -> str | None:
    """The first Chromium or Chrome on the path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a headless browser; `problems` gathers console errors, exceptions and requests that failed."""

    def __init__(self, binary: str, profile: Path, width: int = 1366, height: int = 768) -> None:
        commands, self.write = os.pipe()
        self.read, answers = os.pipe()
        ours = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (commands, answers)]

        def connect() -> None:
            os.dup2(ours[0], 3)
            os.dup2(ours[1], 4)

        line = [binary, *FLAGS.split(), *QUIET.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Python's own files are closed on exec; 3 and 4 must stay.
        self.process = subprocess.Popen([*line, "about:blank"], preexec_fn=connect, close_fds=False, **nowhere)
        list(map(os.close, (commands, answers, *ours)))
        self.rest, self.number, self.session, self.events, self.problems = b"", 0, {}, [], []
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params):
        """Send a command and wait for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while (answer := self._next(end)).get("id") != self.number:
            self._event(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path) -> None:
        """Load a file and wait until it stands."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + PATIENCE
        while "Page.loadEventFired" not in self.events:
            self._event(self._next(end))

    def evaluate(self, code: str):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def save(self, method: str, path: Path, **params) -> Path:
        """Keep what Page.captureScreenshot or Page.printToPDF gives."""
        path.write_bytes(base64.b64decode(self.call(method, **params)["data"]))
        return path

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        list(map(os.close, (self.write, self.read)))

    def _next(self, end: float) -> dict:
        while b"\0" not in self.rest:
            if not select.select([self.read], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            if not (more := os.read(self.read, 1 << 20)):
                raise RuntimeError(f"the browser ended with {self.process.wait()}")
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def _event(self, message: dict) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        self.events.append(method)
        bad = method in ("Runtime.exceptionThrown", "Network.loadingFailed")
        level = params.get("type") or params.get("entry", {}).get("level")
        bad |= method in ("Runtime.consoleAPICalled", "Log.entryAdded") and level in ("error", "warning", "assert")
        bad |= method == "Network.requestWillBeSent" and params["request"]["url"].startswith(("http", "ws", "ftp"))
        if bad:
            self.problems.append((method, params))
