"""The fuzz targets by name."""

from __future__ import annotations

from tests.fuzz import codecs, connections, files

TARGETS = {target.name: target for target in (*connections.TARGETS, *codecs.TARGETS, *files.TARGETS)}
