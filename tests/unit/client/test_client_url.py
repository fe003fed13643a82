"""What addresses mean."""

from __future__ import annotations

import pytest

from tensorquay_client.errors import InvalidArgument
from tensorquay_client.url import grpc_target, http_base


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("http://h", "http://h"),
        ("https://h:1/a/b/", "https://h:1/a/b"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_http(url: str, base: str) -> None:
    assert http_base(url) == base


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("localhost:8001", ("localhost:8001", False)),
        ("grpc://h:1", ("h:1", False)),
        ("grpcs://h:443", ("h:443", True)),
        ("https://h:443", ("h:443", True)),
        ("unix:/tmp/x", ("unix:/tmp/x", False)),
    ],
)
def test_grpc(url: str, target: tuple[str, bool]) -> None:
    assert grpc_target(url) == target


@pytest.mark.parametrize("url", ["", "ftp://h:1", "h:99999", "h:0", "http://", "h:x", "u:p@h:1", "h:1?a=b"])
def test_what_is_no_address(url: str) -> None:
    for read in (http_base, grpc_target):
        with pytest.raises(InvalidArgument):
            read(url)


def test_grpc_wants_a_port() -> None:
    with pytest.raises(InvalidArgument, match="names no port"):
        grpc_target("localhost")
