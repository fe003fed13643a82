"""Clients repeat themselves: what a server remembers of one request must not show in the answer to the next."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from cases import ALL, Case, check
from doors import Door
from right_requests import ANSWERS
from wire import Answer, Call, Given, given
from wrong_requests import REFUSALS

DOORS = pytest.mark.parametrize("door", ALL, indirect=True)


def cases_for(name: str) -> list[Case]:
    # Those that wait for a time-out are told from others by nothing that could be remembered.
    return [case for case in (*ANSWERS, *REFUSALS) if name in case.doors and case.call.model != "waiting"]


@DOORS
def test_right_and_wrong_requests_in_any_order_again_and_again(door: Door, request: pytest.FixtureRequest) -> None:
    cases = cases_for(request.node.callspec.params["door"])
    order = random.Random(7)
    for _ in range(3):
        order.shuffle(cases)
        for case in cases:
            check(door, case)


@DOORS
def test_the_same_request_with_other_numbers(door: Door) -> None:
    for number in range(40):
        row = [float(number), -float(number), number / 7, 1.0]
        answer = door.infer(Call("double", (given("x", "FP32", [row]),)))
        assert isinstance(answer, Answer)
        assert answer.outputs[0].raw() == given("y", "FP32", [[2 * value for value in row]]).raw()


@DOORS
def test_the_same_request_with_other_ids_shapes_and_outputs(door: Door) -> None:
    for number in range(40):
        flat = tuple(float(number + place) for place in range(1 + number % 5))
        x = Given("x", "FP32", (len(flat),), flat)
        both = (("y", {}), ("x", {}))
        call = Call("two_outputs", (x,), id=f"id-{number % 3}", outputs=both if number % 2 else None)
        y = Given("y", "FP32", x.shape, tuple(2 * value for value in flat))
        check(door, Case("1.4", "", call, (y, x) if number % 2 else (x, y)))


@DOORS
def test_the_same_text_with_other_contents(door: Door) -> None:
    for number in range(20):
        x = given("x", "BYTES", [[b"a" * number, b"", str(number).encode()]])
        check(door, Case("1.2", "", Call("t_bytes", (x,)), (replace(x, name="y"),)))


@DOORS
def test_the_same_tensor_to_other_models_and_versions(door: Door) -> None:
    x = given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]])
    factors = {("double", ""): 2, ("versions", "1"): 2, ("versions", "3"): 3, ("versions", ""): 3, ("latest", ""): 3}
    served = {("versions", ""): "3", ("latest", ""): "2"}
    for _ in range(3):
        for (model, version), factor in factors.items():
            y = given("y", "FP32", [[factor * value for value in x.flat]])
            expected = served.get((model, version), version or "1")
            check(door, Case("1.4", "", Call(model, (x,), version), (y,), version=expected))
