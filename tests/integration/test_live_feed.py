"""The live feed and the console's hosting of a real server: over every transport, with TLS, behind front ends, closed
APIs, and as a web page from elsewhere would try to misuse it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from tests.support import ask
from tests.support.http_raw import RawConnection, request
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

from graphs import scale, write
from pki import Authority
from tensorquay.commands.top import top

KINDS = {
    "native": (),
    "asgi": ("--http-transport=asgi",),
    "frontends": ("--frontends=2",),
    "tls": ("--http-use-ssl",),
    "closed": ("--http-restricted-api=statistics,model-repository:x-key=open", "--console=off"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


class Served:
    """A server of one kind, and httpx for it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        write(scale(2.0), folder / kind / "twice" / "1" / "model.onnx")
        flags = KINDS[kind]
        self.ca: Path | None = None
        if kind == "tls":
            authority = Authority(folder / "pki")
            pair = authority.issue()
            self.ca = authority.certificate
            flags = (*flags, f"--http-server-cert={pair.certificate}", f"--http-server-key={pair.key}")
        self.server: RunningServer = start([folder / kind], "--model-control-mode=explicit", "--load-model=*", *flags)

    def client(self, **headers: str) -> httpx.Client:
        verify: Any = True if self.ca is None else ssl.create_default_context(cafile=str(self.ca))
        scheme = "http" if self.ca is None else "https"
        return httpx.Client(base_url=f"{scheme}://{self.server.http}", verify=verify, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    made = Served(request.param, folder)
    yield made
    made.server.end()


every_kind = pytest.mark.parametrize("served", ["native", "asgi", "frontends", "tls"], indirect=True)
"""Ordered by server, so that each is started once."""


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def predict(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/v2/models/twice/infer", content=ask.infer_body(np.ones((1, 4), np.float32)), headers=headers)


@every_kind
def test_the_stream_tells_who_and_what_and_then_what_happens(served: Served) -> None:
    with served.client() as client, served.client() as other, client.stream("GET", "/v2/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        told = events(answer)
        assert [next(told)[0]] == ["hello"]
        models = next(told)
        assert models[0] == "models"
        assert models[1]["may_load"] is True
        [version] = models[1]["models"][0]["versions"]
        assert (version["version"], version["state"], version["serving_default"]) == ("1", "READY", True)
        assert version["bytes"] > 0
        assert version["providers"] == {"CPUExecutionProvider": 1.0}
        assert next(told)[0] == "history"
        # What other tests asked for may still be in the interval that has begun.
        assert next(name for name, _ in told if name == "figures")
        for _ in range(7):
            assert predict(other).status_code == 200
        count = 0.0
        for name, figures in told:
            if name != "figures":
                continue
            count += figures["server"]["requests_per_s"] * figures["seconds"]
            assert figures["server"]["cpu_cores"] is not None
            if round(count) >= 7:
                break
        assert round(count) == 7
        other.post("/v2/repository/models/twice/unload")
        while True:
            name, data = next(told)
            if name == "models" and data["models"][0]["versions"][0]["state"] == "UNAVAILABLE":
                break
        assert other.post("/v2/repository/models/twice/load").status_code == 200


@every_kind
def test_now_and_head_and_wrong_methods(served: Served) -> None:
    with served.client() as client:
        now = client.get("/v2/live/now")
        assert now.json().keys() == {"at_ms", "seconds", "server", "versions"}
        head = client.head("/v2/live")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
        for path in ("/v2/live", "/v2/live/now", "/"):
            refused = client.post(path, content=b"{}")
            assert (refused.status_code, refused.json()) == (405, {"error": "Method Not Allowed"})


@every_kind
def test_readers_that_leave_mid_stream_give_their_places_back(served: Served) -> None:
    with served.client() as client:

        def come_and_go() -> bool:
            with client.stream("GET", "/v2/live") as answer:
                return answer.status_code == 200 and next(events(answer))[0] == "hello"

        for number in range(40):
            until(come_and_go, f"a place for reader {number}")


@every_kind
def test_the_console_is_served_and_asked_for_anew(served: Served) -> None:
    with served.client() as client:
        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        again = client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get("/console/index.html").content == page.content
        assert client.head("/").headers["content-length"] == str(len(page.content))
        missing = client.get("/console/missing.js")
        assert (missing.status_code, missing.json()) == (404, {"error": "Not Found"})
    if served.kind != "tls":
        for path in (
            "/console/../pages.py",
            "/console/..%2f..%2fcli.py",
            "//etc/passwd",
            "/console/%2e%2e/%2e%2e/engine.py",
        ):
            with RawConnection(served.server.http) as connection:
                connection.send(b"GET " + path.encode() + b" HTTP/1.1\r\nhost: x\r\n\r\n")
                assert connection.answer().status == 404


@every_kind
def test_a_page_from_elsewhere_may_neither_compute_nor_change_anything(served: Served) -> None:
    """The requests a form or `fetch` in mode no-cors can make: any origin, a body in text/plain."""
    scheme = "https" if served.kind == "tls" else "http"
    own = f"{scheme}://{served.server.http}"
    posts = {
        "/v2/models/twice/infer": ask.infer_body(np.ones((1, 4), np.float32)),
        "/v2/models/twice/versions/1/infer": ask.infer_body(np.ones((1, 4), np.float32)),
        "/v2/repository/models/twice/unload": b"",
        "/v2/repository/models/twice/load": b"",
        "/v2/repository/index": b"",
        "/v2/logging": b'{"log_verbose_level": 0}',
        "/v2/trace/setting": b"{}",
        "/v2/models/twice/trace/setting": b"{}",
        "/v2/cudasharedmemory/unregister": b"",
    }
    with served.client(**{"content-type": "text/plain"}) as client:
        for path, body in posts.items():
            for foreign in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
                refused = client.post(path, content=body, headers=foreign)
                assert refused.status_code == 403, (path, foreign)
                assert "may not call this server" in refused.json()["error"]
        assert client.get("/v2/models/twice/ready").status_code == 200
        for path, body in posts.items():
            for ours in ({}, {"origin": own}, {"origin": own, "sec-fetch-site": "same-origin"}):
                assert client.post(path, content=body, headers=ours).status_code == 200, (path, ours)
        rebound = client.post(
            "/v2/logging", content=b"{}", headers={"host": "evil.example", "origin": "http://evil.example"}
        )
        assert rebound.status_code == 403
        until(lambda: client.post("/v2/repository/models/twice/load").status_code == 200, "it serves again")


@pytest.mark.parametrize("served", ["closed"], indirect=True)
def test_closed_apis_close_the_figures_and_no_console_answers_as_ever(served: Served) -> None:
    with served.client() as client:
        for path in ("/v2/live", "/v2/live/now"):
            assert client.get(path).status_code == 403
        assert client.get("/v2/live/now", headers={"x-key": "open"}).status_code == 200
        for path in ("/", "/console/index.html", "/favicon.ico"):
            missing = client.get(path)
            assert (missing.status_code, missing.json()) == (404, {"error": "Not Found"})
    assert "console " not in served.server.told()


@pytest.mark.parametrize("served", ["tls", "closed"], indirect=True)
def test_top_reaches_what_models_reaches(served: Served) -> None:
    reaching = ["--ca", str(served.ca)] if served.ca is not None else ["--header", "x-key=open"]
    url = f"http{'s' if served.ca is not None else ''}://{served.server.http}"
    shown = CliRunner().invoke(top, ["--once", "--url", url, *reaching])
    assert (shown.exit_code, "twice/1" in shown.output) == (0, True), shown.output
    refused = CliRunner().invoke(top, ["--once", "--url", url])
    assert refused.exit_code == 1
    assert len(refused.output.splitlines()) == 1


@pytest.mark.parametrize("kind", ["native", "frontends"])
def test_the_stream_ends_with_the_server_and_does_not_hold_it_up(kind: str, tmp_path: Path) -> None:
    served = Served(kind, tmp_path)
    try:
        with RawConnection(served.server.http) as silent:
            silent.send(b"GET /v2/live HTTP/1.1\r\nhost: x\r\n\r\n")
            with served.client() as client, client.stream("GET", "/v2/live") as answer:
                told = events(answer)
                assert next(told)[0] == "hello"
                served.server.process.terminate()
                assert [name for name, _ in told][-1] == "bye"
            assert served.server.wait(25) == 0
        assert "Traceback" not in served.server.told()
    finally:
        served.server.end()


@pytest.mark.parametrize("served", ["native"], indirect=True)
def test_http_10_and_a_request_behind_the_stream(served: Served) -> None:
    """The stream has its connection to itself; a client of HTTP/1.0 gets it without chunks."""
    connection = http.client.HTTPConnection(served.server.http, timeout=30)
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
    connection.request("GET", "/v2/live")
    answer = connection.getresponse()
    assert answer.readline().startswith(b"event: hello")
    connection.close()
    with RawConnection(served.server.http) as raw:
        raw.send(b"GET /v2/live HTTP/1.1\r\nhost: x\r\n\r\n" + request("/v2/logging", b"{}"))
        raw.socket.settimeout(30)
        seen = b""
        while b"event: figures" not in seen:
            seen += raw.socket.recv(65536)
        assert seen.count(b"HTTP/1.1 ") == 1
