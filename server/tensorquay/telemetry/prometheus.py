"""The page that Prometheus scrapes: Triton's names exactly, and our own in base units.

Reads the statistics table when asked; the hot path knows nothing of metrics. Called on the event loop, which owns the
table. What may be on the page: `families.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

from tensorquay.telemetry.exposition import CONTENT_TYPE, Page
from tensorquay.telemetry.server_page import ReadyVersion, ServerFigures, ServerPage, VersionState
from tensorquay.telemetry.statistics import StatisticsTable
from tensorquay.telemetry.version_page import VersionPage

__all__ = ["Metrics", "ReadyVersion", "ServerFigures", "VersionState"]


class Metrics:
    """Renders the page.

    Args:
        table: every version's counters.
        figures: what is asked besides, at each scrape.
        tags: the metric_tags of a model by its name; each becomes a label "_<tag>", as Triton has it.
        build: labels of tensorquay_build_info (version, python).
        root: where `proc` and `sys` are found.
    """

    def __init__(
        self,
        table: StatisticsTable,
        figures: ServerFigures,
        *,
        build: Mapping[str, str],
        tags: Callable[[str], Mapping[str, str]] | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._given = tags
        self._versions = VersionPage(table, self._tags)
        self._server = ServerPage(table, figures, labels=self._versions.labels, build=build, root=root)

    async def render(self) -> tuple[bytes, str]:
        """The page and its content type. About 165 lines per version; docs/operations.md says what that costs.

        Written in turns of about a millisecond, so that a thousand models' page holds up no prediction. What is counted
        meanwhile may be in one family and not yet in another; the lines of one version and family are of one moment.
        """
        page = Page()
        for _ in chain(self._versions.write(page), self._server.write(page)):
            await asyncio.sleep(0)
        return page.encode(), CONTENT_TYPE

    def _tags(self, model: str) -> Mapping[str, str]:
        if self._given is None:
            return {}
        return {"_" + _label_name(name): value for name, value in self._given(model).items()}


def _label_name(name: str) -> str:
    """A tag's name as a label's: everything a label name may not hold becomes an underscore."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
