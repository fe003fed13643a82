"""The answer to an exception nobody foresaw: a fixed text and an id for the client, the cause for the log."""

from __future__ import annotations

import logging
import secrets

from tensorquay.core.errors import ServingError


def unexpected(error: Exception, log: logging.Logger, where: str) -> ServingError:
    """Log `error` with its stack under a fresh id, and give the answer that names only that id.

    Args: where: what was being done, for both ("running model 'x'").
    """
    error_id = secrets.token_hex(4)
    log.error("unexpected error while %s, error id %s", where, error_id, exc_info=error, extra={"error_id": error_id})
    return ServingError(
        f"internal error while {where}, error id {error_id}: the server's log has the cause",
        facts={"error_id": error_id},
    )
