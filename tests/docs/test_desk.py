"""What the page tests stand on: the desk runs what a reader types, and notices what goes wrong."""

from __future__ import annotations

import pytest
from tests.docs.desk import Desk
from tests.docs.markdown import read_blocks


def test_a_failing_command_in_the_middle_fails_the_block(desk: Desk) -> None:
    with pytest.raises(AssertionError, match=r"(?s)p\.md:1 failed \(2\).*no such option"):
        desk.run(next(read_blocks("p.md", "```sh\ntensorquay models --gone\necho done\n```\n")))


def test_folder_and_exported_variables_stay_from_block_to_block(desk: Desk) -> None:
    desk.type("mkdir -p 'a b' && cd 'a b' && export KEPT='1 \"2\"'\nlost=3")
    assert desk.type('echo "${PWD##*/} $KEPT ${lost-}"') == 'a b 1 "2" \n'


def test_what_takes_too_long_is_ended(desk: Desk) -> None:
    with pytest.raises(AssertionError, match="not done after"):
        desk.type("cat /dev/zero > /dev/null", timeout_s=0.5)


def test_the_documents_ports_are_free_ones_here(desk: Desk) -> None:
    told = "curl localhost:8000/v2 127.0.0.1:9090 0.0.0.0:8002 --http-port=9000 --grpc-port 8001 at 8000"
    here = desk.here(told)
    for port in ("8000/v2", "9090", ":8002", "9000", "port 8001"):
        assert port not in here
    assert here.endswith(" at 8000")
    assert desk.here(told) == here
    assert desk.as_told(f"http://127.0.0.1:{desk.ports[8000]}/v2") == "http://127.0.0.1:8000/v2"


def test_a_server_is_ready_when_its_command_returns_and_an_error_of_it_is_seen(desk: Desk) -> None:
    desk.type("tensorquay serve model_repo --no-such-thing || echo refused")
    assert "no such option '--no-such-thing'" in desk.complaints
    desk.type("tensorquay serve model_repo")
    assert desk.type("tensorquay health") == "ready\n"
    assert '"name":"triton"' in desk.type(desk.here("curl -s localhost:8000/v2"))
    with pytest.raises(AssertionError, match="unknown model"):
        desk.type(desk.here("curl -s localhost:8000/v2/models/gone"))
    # Started again, the one before has ended.
    desk.type("tensorquay serve model_repo --server-id=second")
    assert '"name":"second"' in desk.type(desk.here("curl -s localhost:8000/v2"))
