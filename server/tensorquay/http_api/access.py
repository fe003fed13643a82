"""Who may use which API (`--http-restricted-api`): one shared secret per category, in a header."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.http_api.routes import category_of, spellings


class Restrictions:
    """The closed APIs.

    Args: restricted: access category → (header name, value) that a request must carry.
    """

    def __init__(self, restricted: Mapping[str, tuple[str, str]]) -> None:
        self._needed = {
            category: (name.lower().encode("latin-1"), value.encode("latin-1"))
            for category, (name, value) in restricted.items()
        }

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Nothing, when a request with these headers may use `path`.

        Raises: ServingError (PERMISSION_DENIED).
        """
        if not self._needed:
            return
        for spelling in spellings(path):
            needed = self._needed.get(category_of(spelling) or "")
            if needed is None:
                continue
            name, value = needed
            if not hmac.compare_digest(headers.get(name, b""), value):
                raise ServingError(
                    f"This API is restricted, expecting header '{name.decode('latin-1')}'",
                    kind=ErrorKind.PERMISSION_DENIED,
                )
