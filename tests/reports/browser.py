"""A headless Chromium, driven over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import websocket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--mute-audio",
    "--hide-scrollbars", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage", "--force-device-scale-factor=1", "--remote-debugging-port=0",
)  # fmt: skip
PATIENCE_S = 120


class Browser:
    """One tab. What it asked for and what it complained about is kept in ``events``."""

    def __init__(self, width: int = 1400, height: int = 1000, *, scripts: bool = True) -> None:
        self.width, self.height, self.scripts = width, height, scripts
        self.events: list[dict[str, Any]] = []
        self.number = 0

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        size = f"--window-size={self.width},{self.height}"
        self.process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, size, f"--user-data-dir={self.folder.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.socket = websocket.create_connection(
            self._tab_url(), timeout=PATIENCE_S, suppress_origin=True
        )
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=self.width, height=self.height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.call("Emulation.setScriptExecutionDisabled", value=not self.scripts)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self.folder.cleanup()

    def _tab_url(self) -> str:
        port_file = Path(self.folder.name) / "DevToolsActivePort"
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                port = port_file.read_text().splitlines()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = [it for it in json.load(answer) if it["type"] == "page"]
                return str(tabs[0]["webSocketDebuggerUrl"])
            except (OSError, IndexError):
                time.sleep(0.1)
        raise TimeoutError("Chromium did not start")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self.events.append(message)

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def run(self, code: str) -> Any:
        """Return what an expression, or a promise, comes to."""
        answer = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"], indent=1))
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(picture["data"])

    @property
    def asked_for(self) -> list[str]:
        """The addresses that were asked for, without what the page carries itself."""
        sent = [it for it in self.events if it["method"] == "Network.requestWillBeSent"]
        return [it["params"]["request"]["url"].split(",")[0] for it in sent]

    @property
    def complaints(self) -> list[str]:
        """Errors of scripts, and what the content security policy refused."""
        logged = [it["params"]["entry"] for it in self.events if it["method"] == "Log.entryAdded"]
        found = [it["text"] for it in logged if it["level"] == "error"]
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"]))
            if event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
                found.append(json.dumps(event["params"]["args"]))
        return found
