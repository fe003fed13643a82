"""Which web pages may have a browser ask for more than reading. Programs, which send neither header, always may."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.http_api.browsers import Browsers

OURS = "127.0.0.1:8000"


def heads(host: str = OURS, origin: str | None = None, site: str | None = None) -> dict[bytes, bytes]:
    found = {b"host": host.encode(), b"content-type": b"text/plain"}
    if origin is not None:
        found[b"origin"] = origin.encode()
    if site is not None:
        found[b"sec-fetch-site"] = site.encode()
    return found


def allowed(
    headers: dict[bytes, bytes], method: str = "POST", names: tuple[str, ...] = (), path: str = "/v2/logging"
) -> bool:
    try:
        Browsers(names).check(method, path, headers)
    except ServingError as error:
        refusal = error
    else:
        return True
    assert refusal.kind is ErrorKind.PERMISSION_DENIED
    assert "may not call this server" in refusal.message
    return False


@pytest.mark.parametrize("host", [OURS, "gpu.example.com", "evil.example", ""])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_programs_may(host, method):
    assert allowed(heads(host), method)


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        (OURS, f"http://{OURS}", "same-origin"),
        (OURS, f"http://{OURS}", None),
        ("[::1]:8000", "http://[::1]:8000", None),
        ("localhost:8000", "http://localhost:8000", None),
        ("LOCALHOST:8000", "http://localhost.:8000", None),
        ("gpu-box:8000", "http://gpu-box:8000", None),
        ("gpu.lan:8000", "http://gpu.lan:8000", None),
        ("tensorquay.models.svc.cluster.local", "http://tensorquay.models.svc.cluster.local", None),
        ("192.168.1.7", "http://192.168.1.7", None),
        ("192.168.1.7:80", "http://192.168.1.7", None),
        ("models.example.com", "https://models.example.com", None),
        ("models.example.com:443", "https://models.example.com", None),
        # A proxy that does not pass the name on: the browser says that it is its own site.
        ("tensorquay:8000", "https://models.example.com", "same-origin"),
        # The address bar, a bookmark.
        (OURS, None, "none"),
    ],
)
def test_our_own_pages_may(host, origin, site):
    assert allowed(heads(host, origin, site))


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        (OURS, "https://evil.example", "cross-site"),
        (OURS, "https://evil.example", None),
        (OURS, None, "cross-site"),
        (OURS, "null", None),
        (OURS, "null", "cross-site"),
        (OURS, "", None),
        # Another port or scheme is another origin, also on this machine.
        ("localhost:8000", "http://localhost:3000", None),
        ("localhost:8000", "http://localhost:3000", "same-site"),
        ("models.example.com", "http://models.example.com:8000", None),
        ("models.example.com", "https://other.example.com", "same-site"),
        # A name that an attacker made to point here.
        ("evil.example:8000", "http://evil.example:8000", None),
        ("evil.127.0.0.1.nip.io:8000", "http://evil.127.0.0.1.nip.io:8000", None),
        ("a" * 300 + ".example", "http://" + "a" * 300 + ".example", None),
        # No addresses at all.
        (OURS, "http://[::1", None),
        (OURS, "http://127.0.0.1:99999", None),
        ("[", "http://127.0.0.1", None),
        ("", f"http://{OURS}", None),
    ],
)
def test_other_pages_may_not_and_may_read(host, origin, site):
    assert not allowed(heads(host, origin, site))
    assert not allowed(heads(host, origin, site), "DELETE")
    assert allowed(heads(host, origin, site), "GET")
    assert not allowed(heads(host, origin, site), "GET", path="/v2/live"), "it would take the places of our own"


def test_a_name_that_was_configured_is_ours():
    asked = heads("gpu.example.com:8000", "http://gpu.example.com:8000")
    assert not allowed(asked)
    assert allowed(asked, names=("GPU.example.com",))
    with pytest.raises(ServingError, match=r"--http-own-name=gpu\.example\.com"):
        Browsers().check("POST", "/", asked)
    assert not allowed(heads("gpu.example.com:8000", "http://evil.example:8000"), names=("gpu.example.com",))


@given(st.binary(max_size=60), st.binary(max_size=60), st.sampled_from(["POST", "PUT"]))
def test_whatever_the_headers_hold_there_is_an_answer(host, origin, method):
    try:
        Browsers(("x",)).check(method, "/", {b"host": host, b"origin": origin})
    except ServingError as error:
        assert error.message.isprintable()  # noqa: PT017
