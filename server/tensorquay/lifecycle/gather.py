"""Find out what a load request is about: scan the model, take the request's own configuration and files into account.

Blocking: called in a thread. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tensorquay.config.triton import parse_json_config
from tensorquay.core.errors import InvalidArgument, ServingError
from tensorquay.core.ids import is_model_name
from tensorquay.lifecycle.upload import Upload, check_files
from tensorquay.lifecycle.views import Known, Override
from tensorquay.repository.files import ScanLimits, UnusableFile
from tensorquay.repository.scan import scan_folder, scan_model
from tensorquay.repository.snapshot import ModelFolder, RepositoryUnreadable


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A load request: configuration as JSON ("": the repository's own again), and files by "file:<version>/<name>"."""

    name: str
    config_json: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How much a load request may bring."""

    max_files: int = 1_000
    max_bytes: int = 1 << 30
    max_config_bytes: int = 1 << 20


def gather(
    roots: Sequence[Path], order: LoadOrder, current: Known | None, scan_limits: ScanLimits, limits: UploadLimits
) -> Known:
    """The model that `order` asks for.

    Args: current: what is aimed at now; its override stays in force unless the file on disk changed since, or the order
    has an empty configuration.
    Raises: InvalidArgument "failed to load 'x', …" for an unknown model, a refused configuration or bad files.
    An upload that was written is then gone again.
    """
    name = order.name
    if not is_model_name(name):
        raise unknown(name)
    override = _parse(order, limits) if order.config_json else None
    if order.files and override is None:
        raise InvalidArgument(f"failed to load '{name}', files were given without 'config': both are needed")
    try:
        disk = scan_model(roots, name, scan_limits)
    except RepositoryUnreadable as exc:
        raise InvalidArgument(f"failed to load '{name}', failed to poll from model repository: {exc}") from exc
    text = disk.declared.text if disk is not None and disk.declared is not None else ""
    before = current.override if current is not None and order.config_json is None else None
    if before is not None and before.beside == text:
        kept = before
    elif override is not None:
        upload = None
        if order.files:
            checked = check_files(name, order.files, max_files=limits.max_files, max_bytes=limits.max_bytes)
            upload = Upload.write(name, checked)
        kept = Override(override.config, text, upload)
    else:
        if disk is None:
            raise unknown(name)
        return Known(disk, stand_in=False)
    try:
        folder = _overridden(roots, name, kept, scan_limits)
    except BaseException:
        if override is not None and kept.upload is not None:
            kept.upload.delete()
        raise
    if folder is None:
        raise unknown(name)
    return Known(folder, stand_in=False, override=kept)


def unknown(name: str) -> InvalidArgument:
    """The answer to a load of something that no repository has (Triton's words; its 500 would blame us)."""
    short = name[:255]
    return InvalidArgument(
        f"failed to load '{short}', failed to poll from model repository: "
        f"there is no folder '{short}' in the model repository"
    )


def _overridden(roots: Sequence[Path], name: str, override: Override, limits: ScanLimits) -> ModelFolder | None:
    if override.upload is None:
        return scan_model(roots, name, limits, override.config)
    try:
        return scan_folder(override.upload.model, override.upload.base, 0, limits, override=override.config)
    except UnusableFile as exc:
        raise InvalidArgument(f"failed to load '{name}', {exc}") from exc


def _parse(order: LoadOrder, limits: UploadLimits) -> Override:
    text = order.config_json or ""
    if len(text) > limits.max_config_bytes:
        raise InvalidArgument(
            f"failed to load '{order.name}', the configuration in the request has {len(text)} characters, "
            f"at most {limits.max_config_bytes} are read"
        )
    try:
        return Override(parse_json_config(text), "")
    except ServingError as exc:
        raise InvalidArgument(f"failed to load '{order.name}', {exc.message}", facts=exc.facts) from exc
