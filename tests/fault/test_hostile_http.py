"""Bytes that no honest client sends: each is answered in words or the connection ends; nobody else notices anything."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import Dropped, RawAnswer, RawConnection, exchange, request
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

INFER = "/v2/models/scale/infer"
ROW = ask.sequence([[1, 2, 3, 4]])
GOOD = request(INFER, ask.infer_body(ROW))
MAX_BODY = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("hostile") / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    repo.model("any", {1: graphs.identity("FP32", ("batch", "n", "m"))})
    repo.model("text", {1: graphs.identity("BYTES")})
    running = start([repo.root], f"--http-max-input-size={MAX_BODY}", "--model-control-mode=explicit", "--load-model=*")
    yield running
    assert running.stop() == 0, running.told()
    assert "Traceback" not in running.told(), running.told()[-10_000:]


@pytest.fixture(autouse=True)
def _unharmed(server: RunningServer) -> Iterator[None]:
    yield
    assert ask.values(exchange(server.http, GOOD)) == [2, 4, 6, 8]
    until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 0, "nothing is left inside")


# -- no HTTP at all

NOT_HTTP = {
    "nothing but line ends": b"\r\n" * 10_000 + b"x",
    "noise": bytes(range(256)) * 8,
    "zeros": bytes(4096),
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(300),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /v2\r\n\r\n",
    "HTTP/3.0": b"GET /v2 HTTP/3.0\r\nHost: x\r\n\r\n",
    "no version": b"GET /v2/health/live\r\nHost: x\r\n\r\n",
    "a method nobody knows": b"BREW /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower case": b"get /v2/health/live http/1.1\r\nhost: x\r\n\r\n",
    "a proxy request": b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a control character": b"GET /v2/\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without a name": b"GET /v2/health/live HTTP/1.1\r\n: x\r\n\r\n",
    "a header without a colon": b"GET /v2/health/live HTTP/1.1\r\nnonsense\r\n\r\n",
    "a blank before the colon": b"GET /v2/health/live HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a NUL in a header": b"GET /v2/health/live HTTP/1.1\r\nHost: x\x00y\r\n\r\n",
    "two lengths": b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /v2 HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length in hexadecimal": b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0x10\r\n\r\n",
    "a length beyond 64 bits": b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "a coding nobody knows": b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "an endless target": b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless header": b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 300_000 + b"\r\n\r\n",
    "a thousand headers": b"GET /v2/health/live HTTP/1.1\r\n" + b"A: b\r\n" * 30_000 + b"\r\n",
    "chunks without a size": request(INFER, headers={"Transfer-Encoding": "chunked"}).replace(
        b"Content-Length: 0\r\n", b""
    )
    + b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk of 2^64 bytes": request(INFER, headers={"Transfer-Encoding": "chunked"}).replace(
        b"Content-Length: 0\r\n", b""
    )
    + b"10000000000000000\r\nabc",
}


@pytest.mark.parametrize("case", NOT_HTTP)
def test_what_is_no_http_is_refused_and_the_connection_ends(server: RunningServer, case: str) -> None:
    with RawConnection(server.http) as connection:
        connection.send(NOT_HTTP[case])
        try:
            answer = connection.answer()
        except Dropped:
            return
        assert 400 <= answer.status < 600, answer
        assert answer.status != 500, answer
        if answer.status != 200 and answer.headers.get("connection") == "close":
            assert connection.ends()


def test_what_follows_a_refusal_is_not_served(server: RunningServer) -> None:
    """Where the next request begins is not known any more: reading on would let one client speak for another."""
    with RawConnection(server.http) as connection:
        connection.send(NOT_HTTP["two lengths"] + GOOD)
        assert connection.answer().status == 400
        assert connection.ends()


def test_an_offer_to_upgrade_changes_nothing(server: RunningServer) -> None:
    """Java's client offers h2c with its first request; body and all are served as HTTP/1.1."""
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAA"}
    for pieces in (1, 5):
        with RawConnection(server.http) as connection:
            data = request(INFER, ask.infer_body(ROW), headers=headers)
            for number in range(pieces):
                connection.send(data[number * len(data) // pieces : (number + 1) * len(data) // pieces])
            assert ask.values(connection.answer()) == [2, 4, 6, 8]
            connection.send(GOOD)
            assert ask.values(connection.answer()) == [2, 4, 6, 8]


def test_a_request_may_come_byte_by_byte(server: RunningServer) -> None:
    with RawConnection(server.http) as connection:
        for at in range(len(GOOD)):
            connection.send(GOOD[at : at + 1])
        assert ask.values(connection.answer()) == [2, 4, 6, 8]


def test_requests_may_come_in_one_piece(server: RunningServer) -> None:
    with RawConnection(server.http) as connection:
        connection.send(GOOD * 300)
        for _ in range(300):
            assert ask.values(connection.answer()) == [2, 4, 6, 8]


def test_mixed_requests_in_one_piece_are_answered_in_order(server: RunningServer) -> None:
    live = request("/v2/health/live", method="GET")
    index = request("/v2/repository/index")
    absent = request("/v2/models/absent/infer", ask.infer_body(ROW))
    with RawConnection(server.http) as connection:
        connection.send((GOOD + live + index + absent + GOOD) * 20)
        for _ in range(20):
            assert [connection.answer().status for _ in range(5)] == [200, 200, 200, 404, 200]


def test_connections_that_only_begin_do_not_keep_others_out(server: RunningServer) -> None:
    crowd = [RawConnection(server.http) for _ in range(300)]
    for number, slow in enumerate(crowd):
        slow.send(GOOD[: number % (len(GOOD) - 1)])
    with Load(server, "scale", http=2, grpc=0) as load:
        load.more(20)
    load.check({2.0})
    for slow in crowd:
        slow.socket.close()


def test_a_body_may_be_chunked(server: RunningServer) -> None:
    body = ask.infer_body(ROW)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for size in (1, 7, 1000):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        answer = exchange(server.http, head + framed + b"0\r\nTrailer: x\r\n\r\n")
        assert ask.values(answer) == [2, 4, 6, 8]


# -- too much


def test_a_declared_length_beyond_the_limit_is_refused_before_it_is_sent(server: RunningServer) -> None:
    answer = exchange(server.http, request(INFER, length=MAX_BODY + 1))
    assert answer.status == 400
    assert b"--http-max-input-size" in answer.body


def test_a_chunked_body_beyond_the_limit_is_refused_while_it_comes(server: RunningServer) -> None:
    with RawConnection(server.http) as connection:
        connection.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(30):
            connection.send(b"%x\r\n%b\r\n" % (65_536, bytes(65_536)))
        answer = connection.answer()
        assert answer.status == 400
        assert b"--http-max-input-size" in answer.body


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("path", [INFER, "/v2/repository/index", "/v2/logging"])
def test_a_decompression_bomb_does_not_go_off(server: RunningServer, coding: str, path: str) -> None:
    blank = b" " * 100_000_000
    bomb = gzip.compress(blank, 1) if coding == "gzip" else zlib.compress(blank)
    bomb = bomb[: MAX_BODY - 10]
    before = ask.rss_mib(server)

    answer = exchange(server.http, request(path, bomb, headers={"Content-Encoding": coding}))

    assert answer.status == 400, answer
    assert ask.rss_mib(server) < before + 64


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "identity"])
def test_a_body_that_is_not_in_its_coding_is_refused(server: RunningServer, coding: str) -> None:
    body = b"\x1f\x8b\x08\x00" + bytes(100)
    answer = exchange(server.http, request(INFER, body, headers={"Content-Encoding": coding}))
    assert answer.status in {400, 415, 501}, answer


def test_a_truncated_gzip_body_is_refused(server: RunningServer) -> None:
    whole = gzip.compress(ask.infer_body(ROW))
    for end in (1, 10, len(whole) // 2, len(whole) - 1):
        answer = exchange(server.http, request(INFER, whole[:end], headers={"Content-Encoding": "gzip"}))
        assert answer.status == 400, (end, answer)


# -- lies about the body


def test_the_header_length_lies(server: RunningServer) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [tensor]}).encode()
    body = head + ROW.tobytes()
    for claimed in ("-1", "abc", "1", str(len(head) - 1), str(len(head) + 1), str(len(body) + 1), "9" * 30, "", "1e2"):
        answer = exchange(server.http, request(INFER, body, headers={"Inference-Header-Content-Length": claimed}))
        assert answer.status == 400, (claimed, answer)
    for size in (-16, 0, 15, 17, 2**31, 2**63, 2**64, 10**30, 16.0, "16", True, None):
        tensor["parameters"] = {"binary_data_size": size}
        head = json.dumps({"inputs": [tensor]}).encode()
        answer = exchange(
            server.http,
            request(INFER, head + ROW.tobytes(), headers={"Inference-Header-Content-Length": str(len(head))}),
        )
        assert answer.status == 400, (size, answer)


SHAPES = [
    [-1, 4], [0, 4], [1, -4], [2**31, 2**31], [2**32, 2**32], [2**62, 4], [2**63, 1], [2**64, 4], [10**30, 4],
    [1] * 5000, [], [1.0, 4], ["1", 4], [True, 4], [None, 4], [[1], 4], "14", {"0": 1}, None, 4, [1, 4, 1], [4],
    [2**16, 2**16, 2**16, 2**16], [3037000500, 3037000500],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:30])
@pytest.mark.parametrize("model", ["scale", "any", "text"])
def test_a_shape_that_is_none_is_refused(server: RunningServer, shape: object, model: str) -> None:
    datatype = "BYTES" if model == "text" else "FP32"
    for data in ({"data": [1.0, 2.0, 3.0, 4.0]}, {"data": []}, {"data": [[1.0, 2.0, 3.0, 4.0]]}):
        body = json.dumps({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, **data}]}).encode()
        answer = exchange(server.http, request(f"/v2/models/{model}/infer", body))
        assert answer.status in {200, 400}, answer
        if answer.status == 200:
            assert shape in ([0, 4], [1, 4, 1]), "nothing, in the right shape, is a request"


JSON = {
    "nothing": b"{}",
    "an array": b"[]",
    "a number": b"1",
    "text": b"hello",
    "half": ask.infer_body(ROW)[:-1],
    "more": ask.infer_body(ROW) + b"{}",
    "deep arrays": b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep data": ask.infer_body(ROW).replace(b"[1.0", b"[" * 200 + b"1.0").replace(b"4.0]", b"4.0" + b"]" * 200),
    "NaN": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,1,2,3]}]}',
    "Infinity": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[Infinity,1,2,3]}]}',
    "a huge number": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1e999,1,2,3]}]}',
    "a long number": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[' + b"9" * 5000 + b",1,2,3]}]}",
    "text for numbers": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":["a",1,2,3]}]}',
    "truth for numbers": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[true,1,2,3]}]}',
    "null for numbers": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[null,1,2,3]}]}',
    "objects for numbers": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[{},1,2,3]}]}',
    "ragged": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[[1,2],[3]]}]}',
    "too few": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1]}]}',
    "too many": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4,5]}]}',
    "no data": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4]}]}',
    "twice the input": ask.infer_body(ROW, inputs=json.loads(ask.infer_body(ROW))["inputs"] * 2),
    "another input": ask.infer_body(ROW, "z"),
    "another type": b'{"inputs":[{"name":"x","datatype":"INT32","shape":[1,4],"data":[1,2,3,4]}]}',
    "no type": b'{"inputs":[{"name":"x","datatype":"FLOAT","shape":[1,4],"data":[1,2,3,4]}]}',
    "inputs as an object": b'{"inputs":{"x":1}}',
    "an input as text": b'{"inputs":["x"]}',
    "a name as a number": b'{"inputs":[{"name":1,"datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}',
    "an output nobody has": ask.infer_body(ROW, outputs=[{"name": "nobody"}]),
    "an output twice": ask.infer_body(ROW, outputs=[{"name": "y"}, {"name": "y"}]),
    "outputs as text": ask.infer_body(ROW, outputs="y"),
    "a class of too much": ask.infer_body(ROW, outputs=[{"name": "y", "parameters": {"classification": 10**12}}]),
    "a negative class": ask.infer_body(ROW, outputs=[{"name": "y", "parameters": {"classification": -1}}]),
    "parameters as a list": ask.infer_body(ROW, parameters=[1]),
    "a reserved parameter": ask.infer_body(ROW, parameters={"triton_secret": 1}),
    "a nested parameter": ask.infer_body(ROW, parameters={"a": {"b": 1}}),
    "a priority as text": ask.infer_body(ROW, parameters={"priority": "high"}),
    "a negative priority": ask.infer_body(ROW, parameters={"priority": -1}),
    "a timeout as text": ask.infer_body(ROW, parameters={"timeout": "soon"}),
    "a sequence": ask.infer_body(ROW, parameters={"sequence_id": 10**40}),
    "an id as a number": ask.infer_body(ROW, id=7),
    "broken UTF-8": ask.infer_body(ROW).replace(b'"x"', b'"\xff\xfe"'),
    "a lone surrogate": ask.infer_body(ROW).replace(b'"x"', b'"\\ud800"'),
    "shared memory": json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"shared_memory_region": "r"}}]}
    ).encode(),
}  # fmt: skip
"""What is wrong with a body; each is the client's mistake."""

MAY_BE_SERVED = {"a class of too much", "truth for numbers", "deep data", "a sequence"}
"""What a server may also make sense of."""


@pytest.mark.parametrize("case", JSON)
def test_a_wrong_body_is_refused_in_words(server: RunningServer, case: str) -> None:
    answer = exchange(server.http, request(INFER, JSON[case]))

    assert answer.status in ({200, 400, 501} if case in MAY_BE_SERVED else {400, 501}), answer
    if answer.status != 200:
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.body)["error"]
        assert len(answer.body) < 4096, "an answer to nonsense is short"


CONTROL = [
    ("/v2/repository/index", b'{"ready":1}'),
    ("/v2/repository/index", b"[" * 10_000),
    ("/v2/repository/models/scale/load", b'{"parameters":{"config":1}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"config":"{"}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"config":"' + b"[" * 10_000 + b'"}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"nonsense":1}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"file:../../x":"AA=="}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"config":"{}","file:1/../../../x":"AA=="}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"config":"{}","file:1/model.onnx":"not base64!"}}'),
    ("/v2/repository/models/scale/load", b'{"parameters":{"config":"{}","file:1/model.onnx":"AAAA"}}'),
    ("/v2/repository/models/..%2f..%2fetc/load", b""),
    ("/v2/repository/models/absent/load", b""),
    ("/v2/repository/models/scale/unload", b'{"parameters":{"unload_dependents":"yes"}}'),
    ("/v2/logging", b'{"log_info":1}'),
    ("/v2/logging", b'{"log_file":"/etc/passwd"}'),
    ("/v2/logging", b'{"nonsense":true}'),
    ("/v2/trace/setting", b'{"trace_rate":"-1"}'),
    ("/v2/trace/setting", b'{"trace_file":"/etc/cron.d/x"}'),
    ("/v2/trace/setting", b'{"trace_level":["ALL"]}'),
    ("/v2/models/absent/trace/setting", b"{}"),
    ("/v2/systemsharedmemory/region/r/register", b'{"key":"/../etc/passwd","offset":0,"byte_size":16}'),
    ("/v2/cudasharedmemory/region/r/register", b"{}"),
]


@pytest.mark.parametrize(("path", "body"), CONTROL)
def test_a_wrong_control_request_is_refused_in_words(server: RunningServer, path: str, body: bytes) -> None:
    answer = exchange(server.http, request(path, body))

    assert answer.status in {400, 404, 501, 503}, answer
    assert json.loads(answer.body)["error"]
    assert b"/tmp" not in answer.body, "no path of this machine"


PATHS = [
    "/", "/v2/", "/v2//models", "/v2/models/", "/v2/models//infer", "/v2/models/scale/versions//infer",
    "/v2/models/scale/versions/0/infer", "/v2/models/scale/versions/-1/infer", "/v2/models/scale/versions/1e3/infer",
    f"/v2/models/scale/versions/{10**30}/infer", "/v2/models/scale/versions/%31/infer", "/v2/models/../../etc/passwd",
    "/v2/models/%2e%2e/infer", "/v2/models/%00/infer", "/v2/models/%ff%fe/infer", "/v2/models/%/infer",
    "/v2/models/%zz/infer", "/v2/models/scale/infer/", "/v2/models/scale/infer?a=b", "/v2/models/scale%2finfer",
    "/docs/../../etc/passwd", "//v2/health/live", "/v2/health/live/", "/metrics", "*", "http://x/v2/health/live",
    "/v2/models/" + "m" * 20_000 + "/infer", "/v2/models/" + "%41" * 5_000, "/v2/models/a b/infer",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"])
def test_an_odd_path_or_method_is_answered(server: RunningServer, path: str, method: str) -> None:
    with RawConnection(server.http) as connection:
        connection.send(request(path, ask.infer_body(ROW) if method == "POST" else b"", method=method))
        if method == "HEAD":
            connection.socket.shutdown(1)
            return
        answer = connection.answer()
    assert answer.status in {200, 400, 404, 405, 414, 431}, answer
    if answer.status not in {200, 307}:
        assert json.loads(answer.body)["error"]


# -- many


def test_thousands_of_malformed_requests_cost_no_memory(server: RunningServer) -> None:
    """Triton grew by 12 GB on 100,000 of them."""
    mixed = [request(INFER, body) for body in JSON.values() if len(body) < 10_000]
    mixed += [request(f"/v2/models/m{number}/infer", ask.infer_body(ROW)) for number in range(200)]
    mixed += [
        request(INFER, ask.infer_body(ROW, id="i" * number), headers={f"X-{number}": "x"}) for number in range(200)
    ]
    _send_all(server, mixed * 2)
    before = ask.rss_mib(server)

    for turn in range(12):
        _send_all(server, [each.replace(b"Host: test", b"Host: t%d" % turn) for each in mixed])

    assert ask.rss_mib(server) < before + 32


def _send_all(server: RunningServer, requests: list[bytes]) -> None:
    with RawConnection(server.http) as connection:
        for each in requests:
            connection.send(each)
            answer = connection.answer()
            assert answer.status in {200, 400, 404, 501}, (each[:300], answer)


def test_a_thousand_mutations_of_a_good_request(server: RunningServer) -> None:
    """Bytes changed, dropped, doubled and swapped at random, always the same ones: never an answer of 500."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"id": "7", "inputs": [tensor], "outputs": [{"name": "y"}]}).encode()
    binary = request(INFER, head + ROW.tobytes(), headers={"Inference-Header-Content-Length": str(len(head))})
    random_ = random.Random(2026)
    statuses: dict[int, int] = {}
    for number in range(1200):
        data = bytearray(GOOD if number % 2 else binary)
        for _ in range(random_.randint(1, 4)):
            _mutate(data, random_)
        with RawConnection(server.http) as connection:
            connection.send(bytes(data))
            # The end, so that a server that waits for more of a longer body does not wait for ever.
            connection.socket.shutdown(1)
            try:
                status = connection.answer().status
            except Dropped:
                status = 0
        statuses[status] = statuses.get(status, 0) + 1
        assert status in {0, 200, 400, 404, 405, 408, 413, 414, 415, 417, 431, 501, 505}, (status, bytes(data))
    assert statuses.get(400, 0) > 100, statuses


def _mutate(data: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(data))
    match random_.randrange(5):
        case 0:
            data[at] = random_.randrange(256)
        case 1:
            del data[at : at + random_.randint(1, 20)]
        case 2:
            data[at:at] = data[at : at + random_.randint(1, 20)]
        case 3:
            data[at:at] = random_.randbytes(random_.randint(1, 8))
        case 4:
            other = random_.randrange(len(data))
            data[at], data[other] = data[other], data[at]
    if not data:
        data.extend(b"G")


def test_the_same_wrong_answer_is_never_given_twice_for_a_right_question(server: RunningServer) -> None:
    """Between broken requests on one connection, right ones stay right: no state of one leaks into the next."""
    bad = [request(INFER, body) for body in JSON.values() if len(body) < 1000]
    with RawConnection(server.http) as connection:
        for number, each in enumerate(bad):
            connection.send(each)
            connection.answer()
            row = np.full((1, 4), number, np.float32)
            connection.send(request(INFER, ask.infer_body(row)))
            answer: RawAnswer = connection.answer()
            assert ask.values(answer) == [2.0 * number] * 4
