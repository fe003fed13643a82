"""Looks at the console in Firefox, by hand: `python -m tests.console.firefox http://localhost:8000 FOLDER [MODEL]`.

Needs `firefox-esr` or `firefox` on the PATH, a server with MODEL (`digits`), and aiohttp, which tritonclient brings.
Opens every page, sends a prediction from the form, leaves pictures in FOLDER; ends with 1 if a page logged an error.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

LIVE = "document.querySelector('#link-state[data-kind=live]') && document.querySelector('.tiles, .version, .input')"
SEND = "document.querySelector('button[type=submit]').click()"
ANSWER = "document.querySelector('.result :is(.timing, .notice)')?.textContent"
SIZES = {"wide": (1440, 900), "narrow": (500, 740)}  # Firefox is never narrower


class Firefox:
    """One tab, driven over WebDriver BiDi."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.context = ""
        self.wrong: list[str] = []

    async def ask(self, method: str, **params: Any) -> Any:
        """One command; what the page logs meanwhile is noted."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = await self._socket.receive_json(timeout=60)
            if told.get("id") == number:
                if told["type"] == "error":
                    raise RuntimeError(f"{method}: {told['message']}")
                return told["result"]
            if told.get("method") == "log.entryAdded" and told["params"]["level"] in {"error", "warn"}:
                self.wrong.append(f"{told['params']['level']}: {told['params']['text']}")

    async def run(self, script: str) -> Any:
        """The value of `script` in the page."""
        result = await self.ask(
            "script.evaluate", expression=script, target={"context": self.context}, awaitPromise=True
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return result["result"].get("value")

    async def until(self, script: str) -> str:
        """Ask until it is something; "" if it is nothing for half a minute."""
        found = await self.run(
            "new Promise((done) => { const end = Date.now() + 30000; const look = setInterval(() => {"
            f" const found = {script}; if (!found && Date.now() < end) return;"
            " clearInterval(look); done(String(found || '')); }, 100); })"
        )
        return str(found)

    async def picture(self, path: Path) -> None:
        """The whole page."""
        shot = await self.ask("browsingContext.captureScreenshot", context=self.context, origin="document")
        path.write_bytes(base64.b64decode(shot["data"]))


async def look(base: str, folder: Path, model: str, address: str) -> list[str]:
    """Returns what the pages logged as errors."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}/session", max_msg_size=0) as socket:
        firefox = Firefox(socket)
        await firefox.ask("session.new", capabilities={})
        await firefox.ask("session.subscribe", events=["log.entryAdded"])
        firefox.context = (await firefox.ask("browsingContext.getTree"))["contexts"][0]["context"]
        for name, (width, height) in SIZES.items():
            await firefox.ask(
                "browsingContext.setViewport", context=firefox.context, viewport={"width": width, "height": height}
            )
            for page, route in {"overview": "", "model": f"model/{model}", "try": f"try/{model}"}.items():
                # Another query is another document: a change of the hash alone loads nothing.
                await firefox.ask(
                    "browsingContext.navigate",
                    context=firefox.context,
                    url=f"{base}/?{name}-{page}#/{route}",
                    wait="complete",
                )
                if not await firefox.until(LIVE):
                    firefox.wrong.append(f"{page} does not become live")
                if page == "try":
                    await firefox.run(SEND)
                    print(f"{name}: {await firefox.until(ANSWER)}")
                await firefox.picture(folder / f"firefox-{page}-{name}.png")
                if await firefox.run(f"document.documentElement.scrollWidth > {width}"):
                    firefox.wrong.append(f"{page} is wider than {width} px")
        return firefox.wrong


def main() -> int:
    """See the module."""
    base, folder, model = sys.argv[1].rstrip("/"), Path(sys.argv[2]), (sys.argv[3:] or ["digits"])[0]
    binary = shutil.which("firefox-esr") or shutil.which("firefox")
    if binary is None:
        print("there is no firefox; on Debian: apt-get install firefox-esr")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [
            binary,
            "--headless",
            "--no-remote",
            "--profile",
            profile,
            "--remote-debugging-port=0",
            "about:blank",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = (line.partition("listening on ")[2].strip() for line in process.stderr)
            try:
                wrong = asyncio.run(look(base, folder, model, next(filter(None, said))))
            finally:
                process.terminate()
    print("\n".join(wrong) or "nothing was logged")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
