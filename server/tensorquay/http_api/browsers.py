"""Which requests that do more than read may come from a web page: those of this server's own pages.

A page from anywhere can make a browser send a form or a "simple" request here, from wherever its reader sits. Browsers
say so in `Sec-Fetch-Site` and `Origin`; programs send neither and are not concerned. The rule is that of Go's
net/http.CrossOriginProtection, and one more against names that were made to point here (DNS rebinding): a page without
TLS must have come from an address, or from a name that strangers cannot register.
Source: W3C "Fetch Metadata Request Headers"; RFC 6454 §7 (Origin); RFC 6761, RFC 6762, RFC 8375 (special names).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.http_api.routes import spellings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HELD = "/v2/live"
"""Reading it takes one of few places for as long as it lasts."""

_OWN_SITES = frozenset({b"same-origin", b"none"})
_DEFAULT_PORTS = {"http": 80, "https": 443}

_PRIVATE_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test", ".localdomain", ".intranet")
"""Names that nobody can register; a name without a dot is one too."""


def says_browser(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request says of itself that a web page had it sent."""
    return b"origin" in headers or b"sec-fetch-site" in headers


class Browsers:
    """See the module.

    Args: own_names: further names by which pages of this server may be called.
    """

    def __init__(self, own_names: Iterable[str] = ()) -> None:
        self._own_names = frozenset(name.lower().rstrip(".") for name in own_names)

    def check(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Nothing, when a request with this head may be served.

        Raises: ServingError (PERMISSION_DENIED).
        """
        if (method in _SAFE_METHODS and _HELD not in spellings(path)) or not says_browser(headers):
            return
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if site is not None:
            # Only sent where the page came over TLS or from this machine, so that no other name can pose as this one.
            if site.strip().lower() not in _OWN_SITES:
                raise _refused("a web page of another site may not call this server")
            return
        assert origin is not None
        page = _parsed(origin)
        host = _parsed(b"//" + headers.get(b"host", b""))
        if page is None or host is None or not page.hostname or not host.hostname:
            raise _refused("a web page without an address of its own may not call this server")
        name = _name(page.hostname)
        if name in self._own_names:
            return
        if name != _name(host.hostname) or _port(page, page.scheme) != _port(host, page.scheme):
            raise _refused("a web page of another site may not call this server")
        if page.scheme != "https" and not _is_private(name):
            raise _refused(
                f"pages of '{name:.80}' may not call this server, because it is not known to be its name; start it "
                f"with --http-own-name={name:.80}, or use its address, or TLS"
            )


def _refused(text: str) -> ServingError:
    return ServingError(text, kind=ErrorKind.PERMISSION_DENIED)


def _parsed(value: bytes) -> SplitResult | None:
    try:
        found = urlsplit(value.decode("ascii").strip())
        found.port  # noqa: B018  it is only now that a wrong one is noticed
    except ValueError:
        return None
    return found


def _name(hostname: str) -> str:
    return hostname.lower().rstrip(".")


def _port(url: SplitResult, scheme: str) -> int | None:
    return url.port if url.port is not None else _DEFAULT_PORTS.get(scheme)


def _is_private(name: str) -> bool:
    """Whether strangers cannot have made `name`: an address, or a name that is in no public registry."""
    if "." not in name or name.endswith(_PRIVATE_ENDINGS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
