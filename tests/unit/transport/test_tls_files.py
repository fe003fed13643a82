"""The PEM files of a TLS port: what is taken, and the sentence for everything that is not."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import Authority, Pair, openssl
from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import load as load_config
from tensorquay.config.tls import TlsFiles
from tensorquay.transport.tls_files import MAX_FILE_BYTES, TlsProblem, load, validity


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue()


def test_what_is_good_is_a_context_for_this_century(authority: Authority, pair: Pair) -> None:
    material = load(TlsFiles("grpc", pair.certificate, pair.key, authority.certificate), ("h2",))
    context = material.context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    for cipher in context.get_ciphers():
        assert cipher["protocol"] == "TLSv1.3" or (cipher["aead"] and cipher["name"].startswith("ECDHE"))
    assert material.certificate == pair.certificate.read_bytes()
    assert pair.key.read_text() not in repr(material)
    plain = load(TlsFiles("http", pair.certificate, pair.key), ("http/1.1",))
    assert plain.context.verify_mode is ssl.CERT_NONE


Make = Callable[[Path, Authority, Pair], TlsFiles]


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _encrypted(path: Path, pair: Pair, *how: str) -> TlsFiles:
    openssl(*how, "-in", pair.key, "-aes128", "-passout", "pass:1234", "-out", path / "k")
    return TlsFiles("http", pair.certificate, path / "k")


def _damaged(path: Path, pair: Pair) -> TlsFiles:
    lines = pair.certificate.read_text().splitlines()
    lines[2] = lines[2][::-1]
    return TlsFiles("http", _file(path / "c", "\n".join(lines).encode()), pair.key)


def _pipe(path: Path, pair: Pair) -> TlsFiles:
    os.mkfifo(path / "pipe")
    return TlsFiles("http", pair.certificate, path / "pipe")


BAD: dict[str, tuple[Make, str]] = {
    "absent": (
        lambda path, _, pair: TlsFiles("http", path / "c", pair.key),
        r"--http-server-cert: cannot read '\S+/c': No such file or directory",
    ),
    "a folder": (
        lambda path, _, pair: TlsFiles("http", pair.certificate, path),
        r"--http-server-key: '\S+' is not a file; expected a PEM file",
    ),
    "a pipe": (
        lambda path, _, pair: _pipe(path, pair),
        r"--http-server-key: '\S+/pipe' is not a file; expected a PEM file",
    ),
    "empty": (
        lambda path, _, pair: TlsFiles("http", _file(path / "c", b""), pair.key),
        r"--http-server-cert: no certificate in '\S+'; expected '-----BEGIN CERTIFICATE-----', got something that .*",
    ),
    "too large": (
        lambda path, _, pair: TlsFiles("http", _file(path / "c", bytes(MAX_FILE_BYTES + 1)), pair.key),
        rf"--http-server-cert: '\S+' is larger than {MAX_FILE_BYTES} bytes; expected a PEM file",
    ),
    "der": (
        lambda path, _, pair: TlsFiles(
            "http", _file(path / "c", ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())), pair.key
        ),
        r"--http-server-cert: no certificate in .* got something that is not PEM",
    ),
    "exchanged": (
        lambda path, _, pair: TlsFiles("grpc", pair.key, pair.certificate),
        r"--grpc-server-cert: no certificate in .* got a key, are certificate and key exchanged\?",
    ),
    "damaged": (
        lambda path, _, pair: _damaged(path, pair),
        r"--http-server-cert: '\S+'(: the certificate is damaged; .*| with the key '\S+': .*; expected the .*)",
    ),
    "no key": (
        lambda path, _, pair: TlsFiles("http", pair.certificate, pair.certificate),
        r"--http-server-key: no private key in '\S+'; expected PEM, '-----BEGIN PRIVATE KEY-----'",
    ),
    "half a key": (
        lambda path, _, pair: TlsFiles("http", pair.certificate, _file(path / "k", pair.key.read_bytes()[:60])),
        r"--http-server-cert: '\S+' with the key '\S+': OpenSSL .*; expected .*",
    ),
    "another's key": (
        lambda path, authority, pair: TlsFiles("http", pair.certificate, authority.issue().key),
        r"--http-server-cert: .*: the key does not belong to the first certificate of the file; expected .*",
    ),
    "encrypted, PKCS 8": (
        lambda path, _, pair: _encrypted(path, pair, "pkey"),
        r"--http-server-key: the key in '\S+/k' is encrypted, which is not supported; decrypt it \('openssl pkey .*",
    ),
    "encrypted, of old": (
        lambda path, _, pair: _encrypted(path, pair, "ec"),
        r"--http-server-key: the key in '\S+/k' is encrypted, which is not supported; decrypt it .*",
    ),
    "no authorities": (
        lambda path, _, pair: TlsFiles("grpc", pair.certificate, pair.key, _file(path / "r", b"\n")),
        r"--grpc-root-cert: no certificate in '\S+/r'; expected those of the authorities, in PEM",
    ),
    "absent authorities": (
        lambda path, _, pair: TlsFiles("grpc", pair.certificate, pair.key, path / "r"),
        r"--grpc-root-cert: cannot read '\S+/r': No such file or directory",
    ),
    "damaged authorities": (
        lambda path, _, pair: TlsFiles("grpc", pair.certificate, pair.key, _damaged(path, pair).certificate),
        r"--grpc-root-cert: '\S+/c': OpenSSL .*; expected certificates in PEM",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_each_bad_file_is_named_with_what_to_do(tmp_path: Path, authority: Authority, pair: Pair, case: str) -> None:
    make, text = BAD[case]
    with pytest.raises(TlsProblem) as caught:
        load(make(tmp_path, authority, pair), ("h2",))
    said = caught.value.message
    assert re.fullmatch(text, said), said
    secrets = [line for line in pair.key.read_text().splitlines() if not line.startswith("-")]
    assert not any(line in said for line in secrets)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_key_that_may_not_be_read(tmp_path: Path, pair: Pair) -> None:
    key = _file(tmp_path / "k", pair.key.read_bytes())
    key.chmod(0)
    with pytest.raises(TlsProblem, match=r"--http-server-key: cannot read '.*': Permission denied"):
        load(TlsFiles("http", pair.certificate, key), ())


# -- dates


def test_dates_are_those_that_openssl_prints(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    late, curve = tmp_path / "late.pem", ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # After 2049 the date is written in another way.
    openssl("req", "-x509", *curve, "-days", "15000", "-subj", "/CN=x", "-keyout", tmp_path / "late.key", "-out", late)
    for path in (pair.certificate, authority.certificate, authority.issue_expired().certificate, late):
        printed = openssl("x509", "-in", path, "-noout", "-dates")
        expected = tuple(ssl.cert_time_to_seconds(line.partition("=")[2]) for line in printed.splitlines())
        assert validity(ssl.PEM_cert_to_DER_cert(path.read_text())) == expected


def test_a_date_that_is_not_now_is_complained_of(authority: Authority, pair: Pair) -> None:
    material = load(TlsFiles("http", pair.certificate, pair.key), ())
    assert material.complaint(material.first_s) is None
    assert material.complaint(material.last_s) is None
    assert "is not valid before 20" in str(material.complaint(material.first_s - 1))
    expired = authority.issue_expired()
    old = load(TlsFiles("http", expired.certificate, expired.key), ())
    assert old.complaint(material.first_s) == "the certificate expired at 2020-01-02 00:00 UTC"


@given(st.data())
def test_any_bytes_are_a_certificate_or_a_value_error(authority: Authority, data: st.DataObject) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(authority.certificate.read_text()))
    for _ in range(data.draw(st.integers(0, 4))):
        der[data.draw(st.integers(0, 120))] = data.draw(st.integers(0, 255))
    cut = bytes(der[: data.draw(st.integers(0, len(der)))])
    for each in (bytes(der), cut, data.draw(st.binary(max_size=80))):
        try:
            first, last = validity(each)
        except ValueError:
            continue
        assert isinstance(first, int)
        assert isinstance(last, int)


# -- flags


@pytest.mark.parametrize("port", ["http", "grpc"])
@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ({"use_ssl": True}, "{0}_use_ssl needs {0}_server_cert, a PEM file"),
        ({"use_ssl": True, "server_cert": "c"}, "{0}_use_ssl needs {0}_server_key, a PEM file"),
        ({"server_cert": "c", "server_key": "k"}, "{0}_use_ssl is not: say true to use them"),
        ({"use_ssl": False, "use_ssl_mutual": True}, "demands client certificates and {0}_use_ssl is false"),
        ({"use_ssl_mutual": True, "server_cert": "c", "server_key": "k"}, "{0}_use_ssl_mutual needs {0}_root_cert"),
    ],
)
def test_flags_that_make_no_sense_together(port: str, given_: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text.format(port))):
        ServerConfig(**{f"{port}_{name}": value for name, value in given_.items()})  # type: ignore[arg-type]


def test_flags_that_do() -> None:
    three = {"grpc_server_cert": "c", "grpc_server_key": "k", "grpc_root_cert": "r"}
    files = {"port": "grpc", "certificate": Path("c"), "key": Path("k")}
    off = ServerConfig.model_validate({**three, "grpc_use_ssl": "false"})
    assert off.grpc_tls is None
    assert off.notes == ()
    plain = ServerConfig.model_validate({**three, "grpc_use_ssl": "1"})
    assert plain.grpc_tls == TlsFiles(**files)  # type: ignore[arg-type]
    assert "grpc_root_cert has no effect without grpc_use_ssl_mutual" in plain.notes[0]
    mutual = ServerConfig.model_validate({**three, "grpc_use_ssl_mutual": "true"})
    assert mutual.grpc_tls == TlsFiles(**files, roots=Path("r"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metrics_use_ssl needs http_use_ssl"):
        ServerConfig(metrics_use_ssl=True)


def test_files_named_in_a_configuration_file_are_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('http_use_ssl = true\nhttp_server_cert = "tls.crt"\nhttp_server_key = "/keys/tls.key"\n')
    config = load_config(file=file, environment={}, command_line={})
    assert config.http_tls == TlsFiles("http", tmp_path / "tls.crt", Path("/keys/tls.key"))
