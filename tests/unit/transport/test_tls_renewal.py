"""Certificates that are replaced while they are served, and handshakes that are counted: without sockets."""

from __future__ import annotations

import logging
import shutil
import ssl
import time
from pathlib import Path

import pytest

from pki import Authority, Pair
from tensorquay.config.tls import TlsFiles
from tensorquay.testing import ManualClock
from tensorquay.transport.tls import Certificates, PortContext

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> list[Pair]:
    return [authority.issue() for _ in range(2)]


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.certificate)


class Served:
    """The files of a port, replaced by rename, and the context made of them."""

    def __init__(self, folder: Path, pair: Pair, *, handshakes: int = 10) -> None:
        self.folder = folder
        self.clock = ManualClock(start_wall_ms=time.time_ns() // 1_000_000)
        self.put(pair.certificate, "tls.crt")
        self.put(pair.key, "tls.key")
        self.certificates = Certificates(
            TlsFiles("http", folder / "tls.crt", folder / "tls.key"), ("http/1.1",), clock=self.clock
        )
        self.context = PortContext(self.certificates, clock=self.clock, handshakes=handshakes)

    def put(self, path: Path, name: str) -> None:
        shutil.copy(path, self.folder / "new")
        (self.folder / "new").replace(self.folder / name)

    def later(self, seconds: float = 1.0) -> None:
        self.clock.advance(int(seconds * SECOND))


@pytest.fixture
def served(tmp_path: Path, pairs: list[Pair]) -> Served:
    return Served(tmp_path, pairs[0])


class Peers:
    """A client and a server that hand each other their bytes."""

    def __init__(
        self, context: ssl.SSLContext, trusting: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = trusting.wrap_bio(self.to_client, self.to_server, server_hostname="localhost", session=session)
        self.server = context.wrap_bio(self.to_server, self.to_client, server_side=True)

    def shake(self) -> bytes:
        """The certificate the client is shown."""
        done = [False, False]
        for _ in range(10):
            for index, side in enumerate((self.client, self.server)):
                if not done[index]:
                    try:
                        side.do_handshake()
                        done[index] = True
                    except ssl.SSLWantReadError:
                        continue
        assert done == [True, True]
        shown = self.client.getpeercert(binary_form=True)
        assert shown is not None
        return shown


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def test_new_connections_see_the_new_certificate(served: Served, trusting: ssl.SSLContext, pairs: list[Pair]) -> None:
    old, new = map(der, pairs)
    assert Peers(served.context, trusting).shake() == old
    open_before = Peers(served.context, trusting)
    served.put(pairs[1].certificate, "tls.crt")
    served.put(pairs[1].key, "tls.key")
    assert Peers(served.context, trusting).shake() == old, "the files are looked at once a second at most"
    served.later()
    assert Peers(served.context, trusting).shake() == new
    assert open_before.shake() == old
    first = served.certificates.newest()
    served.later()
    assert served.certificates.newest() is first, "nothing changed, nothing is read"


def test_half_a_replacement_is_waited_for_and_told_once(
    served: Served, pairs: list[Pair], caplog: pytest.LogCaptureFixture
) -> None:
    before = served.certificates.newest()
    served.put(pairs[1].certificate, "tls.crt")
    caplog.set_level(logging.INFO, "tensorquay.tls")
    for looks in range(5):
        served.later()
        assert served.certificates.newest() is before
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == (looks > 0), "the first look may come between two renames"
    assert "the key does not belong to the first certificate" in errors[0].getMessage()
    assert "stays" in errors[0].getMessage()
    served.put(pairs[1].key, "tls.key")
    served.later()
    assert served.certificates.newest() is not before
    assert "TLS certificate is renewed, valid until" in caplog.messages[-1]


def test_files_that_go_away_change_nothing(served: Served, pairs: list[Pair], caplog: pytest.LogCaptureFixture) -> None:
    before = served.certificates.newest()
    kept = [(served.folder / name).read_bytes() for name in ("tls.crt", "tls.key")]
    (served.folder / "tls.key").unlink()
    for _ in range(3):
        served.later()
        assert served.certificates.newest() is before
    assert len(caplog.records) == 1
    assert "cannot read" in caplog.text
    (served.folder / "tls.key").write_bytes(kept[1])
    served.later()
    assert served.certificates.newest().certificate == kept[0]


def test_the_swap_of_a_link_as_kubernetes_does_it(tmp_path: Path, trusting: ssl.SSLContext, pairs: list[Pair]) -> None:
    for index, pair in enumerate(pairs):
        folder = tmp_path / f"..generation{index}"
        folder.mkdir()
        shutil.copy(pair.certificate, folder / "tls.crt")
        shutil.copy(pair.key, folder / "tls.key")
    (tmp_path / "..data").symlink_to("..generation0")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    clock = ManualClock()
    files = TlsFiles("grpc", tmp_path / "tls.crt", tmp_path / "tls.key")
    context = PortContext(Certificates(files, ("h2",), clock=clock), clock=clock)
    assert Peers(context, trusting).shake() == der(pairs[0])
    (tmp_path / "..data_tmp").symlink_to("..generation1")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    clock.advance(SECOND)
    assert Peers(context, trusting).shake() == der(pairs[1])


def test_an_expired_certificate_is_served_and_told_once(
    tmp_path: Path, authority: Authority, pairs: list[Pair], caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(tmp_path, authority.issue_expired())
    for _ in range(3):
        served.later()
        served.certificates.newest()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    wall_s = served.clock.wall_ms() // 1000
    complaint = served.certificates.newest().complaint(wall_s)
    assert complaint is not None
    assert warnings == [f"--http-server-cert: {complaint}; clients will refuse it"]


def test_sessions_do_not_outlive_the_certificate(served: Served, trusting: ssl.SSLContext, pairs: list[Pair]) -> None:
    # Its sessions are known when the handshake is done.
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2

    def connect(session: ssl.SSLSession | None) -> ssl.SSLObject:
        peers = Peers(served.context, trusting, session)
        peers.shake()
        return peers.client

    session = connect(None).session
    assert connect(session).session_reused
    served.put(pairs[1].certificate, "tls.crt")
    served.put(pairs[1].key, "tls.key")
    served.later()
    assert not connect(session).session_reused


# -- handshakes


def test_handshakes_under_way_are_bounded(tmp_path: Path, trusting: ssl.SSLContext, pairs: list[Pair]) -> None:
    served = Served(tmp_path, pairs[0], handshakes=2)
    first, second, third = (Peers(served.context, trusting) for _ in range(3))
    with pytest.raises(ssl.SSLError, match="too many handshakes under way"):
        third.server.do_handshake()
    first.shake()
    Peers(served.context, trusting).shake()
    assert Peers(served.context, trusting).shake(), "a handshake that is over makes room"
    held = [second, Peers(served.context, trusting)]
    with pytest.raises(ssl.SSLError):
        Peers(served.context, trusting).server.do_handshake()
    held.clear()
    del second
    Peers(served.context, trusting).shake()


def test_garbage_ends_a_handshake_and_frees_its_place(
    tmp_path: Path, trusting: ssl.SSLContext, pairs: list[Pair], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tensorquay.tls")
    served = Served(tmp_path, pairs[0], handshakes=1)
    for garbage, reason in ((b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST"), (bytes(64), "WRONG_VERSION_NUMBER")):
        peers = Peers(served.context, trusting)
        peers.to_server.write(garbage)
        with pytest.raises(ssl.SSLError):
            peers.server.do_handshake()
        assert f"TLS handshake failed: {reason}" in caplog.messages
        assert caplog.records[-1].levelno == logging.DEBUG
    Peers(served.context, trusting).shake()


def test_places_are_free_again_when_no_loop_would_still_wait(
    tmp_path: Path, trusting: ssl.SSLContext, pairs: list[Pair]
) -> None:
    served = Served(tmp_path, pairs[0], handshakes=1)
    held = Peers(served.context, trusting)
    with pytest.raises(ssl.SSLError):
        Peers(served.context, trusting).server.do_handshake()
    served.later(61)
    Peers(served.context, trusting).shake()
    assert held.shake()


def test_the_client_hears_why_before_the_connection_ends(served: Served, trusting: ssl.SSLContext) -> None:
    trusting.set_ciphers("AES128-SHA")
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    peers = Peers(served.context, trusting)
    with pytest.raises(ssl.SSLWantReadError):
        peers.client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        peers.server.do_handshake()
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        peers.client.do_handshake()
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        peers.server.do_handshake()
