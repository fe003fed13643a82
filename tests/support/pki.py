"""Certificates made for a test with the `openssl` program. Tests that need some are skipped without it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of its own in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._made = 0
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        subject = ("-days", "2", "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")
        openssl("req", "-x509", *_CURVE, *subject, "-keyout", self._key, "-out", self.certificate)

    def issue(self, name: str = "localhost", *, names: str = _NAMES) -> Pair:
        """A pair for `name`, valid for two days."""
        pair, request, extensions = self._request(name, names)
        signed = ("-days", "2", "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        openssl("x509", "-req", "-in", request, *signed, "-extfile", extensions, "-out", pair.certificate)
        return pair

    def issue_expired(self) -> Pair:
        """A pair that was valid on one day of 2020."""
        pair, request, extensions = self._request("localhost", _NAMES)
        (self.folder / "index").write_text("")
        settings = self.folder / "ca.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=a\n[a]\ndatabase={self.folder}/index\nnew_certs_dir={self.folder}\nrand_serial=yes\n"
            "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
        )
        days = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-notext", "-extfile", extensions)
        signed = ("-cert", self.certificate, "-keyfile", self._key, "-in", request, "-out", pair.certificate)
        openssl("ca", "-batch", "-config", settings, *signed, *days)
        return pair

    def _request(self, name: str, names: str) -> tuple[Pair, Path, Path]:
        self._made += 1
        stem = self.folder / f"{name}-{self._made}"
        pair = Pair(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        extensions.write_text(f"{names}\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-new", *_CURVE, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        return pair, request, extensions


def openssl(*words: object) -> str:
    """What the program prints; the test is skipped when it is not installed."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: no certificates to test TLS with")
    done = subprocess.run([program, *map(str, words)], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
