"""A headless Chromium, spoken to by its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LONGEST = 60  # seconds


def found() -> str | None:
    """Return the path of a Chromium; None if there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A Chromium with one page, and all that it said and asked for since it was opened.

    Args:
        profile: a folder of its own.
    """

    def __init__(self, profile: Path):
        program = found()
        assert program is not None
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        flags += ["--no-first-run", "--disable-extensions", "--disable-background-networking"]
        # The protocol's ends are the descriptors 3 and 4; the shell puts them there.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest, self._session = 0, b"", ""
        self._events: list[dict[str, Any]] = []
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """Return the protocol's answer to one request."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda came: came.get("id") == self._number)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + _LONGEST
        while True:
            while b"\0" not in self._rest:
                ready = select.select([self._in], [], [], max(0, end - time.monotonic()))[0]
                data = os.read(self._in, 1 << 20) if ready else b""
                assert data, "the browser is silent"
                self._rest += data
            message, _, self._rest = self._rest.partition(b"\0")
            came = json.loads(message)
            if "method" in came:
                self._events.append(came)
            if wanted(came):
                return dict(came)

    def open(self, page: Path | str) -> None:
        """Show a file, or what stands at an address, and wait until it is loaded."""
        self._events.clear()
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.ask("Page.navigate", url=url)
        if not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._until(lambda came: came.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript comes to."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press and release a key."""
        common = {"key": key, "windowsVirtualKeyCode": code, "code": key}
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.ask("Input.dispatchKeyEvent", **common, **down)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text: str) -> None:
        """Type a text."""
        self.ask("Input.insertText", text=text)

    def complaints(self) -> list[str]:
        """Return errors and warnings since the page was opened."""
        self.value("0")
        return [
            json.dumps(event["params"])
            for event in self._events
            if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
            or (
                event["method"] == "Runtime.consoleAPICalled"
                and event["params"]["type"] in ("error", "warning", "assert")
            )
        ]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        self.value("0")
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def emulate(
        self, *, width: int = 1280, height: int = 900, dark: bool = False, media: str = ""
    ) -> None:
        """Have a window of so many pixels, a light or dark screen, or paper (`print`)."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def picture(self, height: int | None = None) -> bytes:
        """Return the whole page as PNG, or its first so many pixels."""
        clip = {}
        if height is not None:
            width = self.value("innerWidth")
            clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, **clip)
        return base64.b64decode(shot["data"])

    def paper(self) -> bytes:
        """Return the page as PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=True)["data"])

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        try:
            self.ask("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(timeout=_LONGEST)
        os.close(self._out)
        os.close(self._in)
