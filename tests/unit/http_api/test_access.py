"""Closed APIs are closed in every spelling of their paths, and no path of the protocol is in none."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.http_api.access import Restrictions
from tensorquay.http_api.browsers import Browsers
from tensorquay.http_api.control import control_app
from tensorquay.http_api.routes import category_of

APP = control_app(cast("Any", SimpleNamespace()), cast("Any", SimpleNamespace()), max_body_bytes=1, pages={})
PATHS = [re.sub(r"\{(\w+)(:path)?\}", lambda found: "1" if found[1] == "version" else "m", path)
         for path in APP.openapi()["paths"]]  # fmt: skip
EVERYTHING = Restrictions({category: ("x-key", "open") for path in PATHS if (category := category_of(path))})


def test_every_path_of_the_protocol_can_be_closed() -> None:
    assert len(PATHS) > 20
    assert [path for path in PATHS if category_of(path) is None] == []


@given(st.sampled_from(PATHS), st.data())
def test_a_closed_path_is_closed_in_every_spelling(path: str, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(1, len(path) - 1)))
    upper = data.draw(st.booleans())
    written = "".join(
        (f"%{ord(letter):02X}" if upper else f"%{ord(letter):02x}") if at in chosen else letter
        for at, letter in enumerate(path)
    )
    assert unquote(written) == path
    with pytest.raises(ServingError) as caught:
        EVERYTHING.check(written, {})
    assert caught.value.kind is ErrorKind.PERMISSION_DENIED
    EVERYTHING.check(written, {b"x-key": b"open"})


@pytest.mark.parametrize("path", ["/v2/live", "/v2/%6Cive", "/%762/liv%65"])
def test_another_sites_page_may_not_hold_the_feed(path: str) -> None:
    headers = {b"origin": b"http://evil.example", b"sec-fetch-site": b"cross-site"}
    with pytest.raises(ServingError):
        Browsers().check("GET", path, headers)


def test_a_line_break_in_a_name_opens_nothing() -> None:
    with pytest.raises(ServingError):
        EVERYTHING.check("/v2/repository/models/a%0Ab/unload", {})
