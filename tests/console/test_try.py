"""The form: what it sends is answered as by any other client, and the code it shows does the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.console.browsing import ROOT, Console
from tests.console.conftest import MARKUP, Opener
from tests.support.serving import RunningServer

pytestmark = pytest.mark.browser

# What a person does with the result of the snippet; the variable is the snippet's own.
TAIL = {
    "triton": "show = lambda name: result.as_numpy(name)",
    "ours": "show = lambda name: result[name]",
}


def run_python(code: str, kind: str, outputs: list[str], folder: Path) -> dict[str, Any]:
    """Runs the copied Python and gives its outputs as lists."""
    end = f"""
{TAIL[kind]}
import json, sys
plain = lambda value: value.decode() if isinstance(value, bytes) else value.item() if hasattr(value, "item") else value
print("RESULT " + json.dumps({{name: [plain(v) for v in show(name).ravel()] for name in {outputs!r}}}))
"""
    environment = {"PYTHONPATH": str(ROOT / "clients"), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", code + end],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.split("RESULT ", 1)[1])


def run_curl(code: str, folder: Path) -> dict[str, Any]:
    """Runs the copied curl line in a shell."""
    ended = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert "error" not in answer, answer
    return {output["name"]: output["data"] for output in answer["outputs"]}


def flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [each for value in values for each in flat(value)]


def same(one: Any, other: Any) -> bool:
    one, other = flat(one), flat(other)
    if len(one) != len(other):
        return False
    return all(
        a == b or (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-6)) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("simple", ["OUTPUT0", "OUTPUT1"]),
        ("simple_identity", ["OUTPUT0"]),
        ("flags", ["y"]),
        ("big_ids", ["y"]),
        (MARKUP, ["y"]),
    ],
    ids=["numbers", "texts", "flags", "64 bits", "a name with markup"],
)
def test_the_copied_code_gives_the_answer_of_the_page(
    console: Console, tmp_path: Path, model: str, outputs: list[str]
) -> None:
    console.try_(model)
    console.send()
    answer = {name: console.values(name) for name in outputs}
    by_curl = run_curl(console.code("curl"), tmp_path)
    for name in outputs:
        assert same(by_curl[name], answer[name]), (name, by_curl[name], answer[name])
    for kind in ("triton", "ours"):
        got = run_python(console.code(kind), kind, outputs, tmp_path)
        for name in outputs:
            assert same(got[name], answer[name]), (kind, name)


def test_labels_come_back_as_labels_by_page_and_code(console: Console, tmp_path: Path) -> None:
    page = console.try_("digits", "2")
    page.locator("input[type=file]").set_input_files(ROOT / "docs" / "images" / "digit.png")
    page.get_by_text("80 × 80 pixels became [1, 1, 8, 8].").wait_for()
    console.send()
    best = page.locator(".bars li").first
    assert best.locator("bdi").inner_text() == "six"
    assert page.locator(".single").inner_text() == "6"
    classes = console.values("probabilities")
    assert len(classes[0]) == 5
    assert same(run_curl(console.code("curl"), tmp_path)["probabilities"], classes)
    assert same(
        run_python(console.code("triton"), "triton", ["probabilities", "digit"], tmp_path)["probabilities"], classes
    )
    printed = subprocess.run(
        [sys.executable, "-c", console.code("ours")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": str(ROOT / "clients"), "PATH": "/usr/bin:/bin"},
    )
    assert "six" in printed.stdout


def test_probabilities_without_labels_are_bars(console: Console) -> None:
    page = console.try_("digits", "1")
    page.get_by_label("as labels, best").uncheck()
    console.send()
    assert page.locator(".bars li").count() == 10
    values = console.values("probabilities")
    assert math.isclose(sum(values[0]), 1.0, abs_tol=1e-4)
    assert page.get_by_text("Version", exact=True).first.is_visible()


def test_a_picture_becomes_what_the_command_line_makes_of_it(console: Console, tmp_path: Path) -> None:
    """Colour, more pixels than the model takes, transparency: the tensor is that of `tensorquay infer --image`."""
    from tensorquay_client.cli_images import image_tensor
    from tensorquay_client.messages import TensorMetadata

    pixels = np.random.default_rng(7).integers(0, 256, (20, 13, 4), np.uint8)
    pixels[..., 3] = np.where(pixels[..., 3] < 128, 0, 255)  # half transparent pixels depend on how a browser rounds
    picture = tmp_path / "picture.png"
    Image.fromarray(pixels).save(picture)
    spec = TensorMetadata("x", "UINT8", (-1, 6, 5, 3))
    expected = image_tensor([picture], spec, darkest=0, brightest=255, invert=False).array
    page = console.try_("bytes_photo")
    page.locator("input[type=file]").set_input_files(picture)
    page.get_by_text("13 × 20 pixels became [1, 6, 5, 3].").wait_for()
    console.send()
    got = np.array(console.values("y"))
    assert got.shape == expected.shape
    assert np.abs(got - expected.astype(int)).max() <= 1  # Pillow computes in fixed point


def test_a_picture_in_floats_with_a_range_of_its_own(console: Console, tmp_path: Path) -> None:
    picture = tmp_path / "white.png"
    Image.new("L", (10, 6), 255).save(picture)
    page = console.try_("bytes_photo")
    page.evaluate(
        """() => {
            const { prototype } = OffscreenCanvasRenderingContext2D;
            const read = prototype.getImageData;
            prototype.getImageData = function (...area) { return (window.pixels = read.apply(this, area)); };
        }"""
    )
    page.locator("input[type=file]").set_input_files(picture)
    page.get_by_text("10 × 6 pixels became [1, 6, 5, 3].").wait_for()
    # A picture is large: its own pixels are looked at once, whatever range is chosen then.
    page.evaluate("new Uint32Array(window.pixels.data.buffer).fill(0xff000000)")
    page.get_by_label("Pixels become").select_option("own")
    page.get_by_label("white is").fill("40")
    page.get_by_label("white is").press("Enter")
    page.get_by_text("as JSON").wait_for()
    console.send()
    assert set(flat(console.values("y"))) == {40}
    page.locator("input[type=file]").set_input_files(ROOT / "README.md")
    page.get_by_text("cannot be read as a picture").wait_for()


def test_sixteen_bits_and_texts_and_numbers_in_one_request(console: Console, tmp_path: Path) -> None:
    page = console.try_("mixed")
    page.get_by_label("text, element 1").fill('a "quoted" \U0001f600 word')
    page.get_by_label("bits, element 1").fill("1.5")
    page.get_by_label("x, element 1").fill("2.25")
    page.get_by_text("as binary tensor data").wait_for()
    console.send()
    assert console.values("text_out") == ['a "quoted" \U0001f600 word']
    assert console.values("bits_out") == [1.5]
    assert console.values("x_out") == [3.75]
    outputs = ["text_out", "bits_out", "x_out"]
    for kind in ("triton", "ours"):
        got = run_python(console.code(kind), kind, outputs, tmp_path)
        assert got == {"text_out": ['a "quoted" \U0001f600 word'], "bits_out": [1.5], "x_out": [3.75]}, kind
    console.code("curl")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save request.bin").click()
    download.value.save_as(tmp_path / "request.bin")
    subprocess.run(["bash", "-c", console.code("curl")], cwd=tmp_path, check=True, timeout=60)
    body = (tmp_path / "answer.bin").read_bytes()
    assert body.endswith(np.float32(3.75).tobytes())


def test_many_values_go_as_bytes_and_code_takes_them_from_files(console: Console, tmp_path: Path) -> None:
    page = console.try_("many")
    page.get_by_text("5,000 values, too many to be edited here.").wait_for()
    console.send()
    answer = console.values("y")
    for kind, file in (("curl", "request.bin"), ("triton", "input0.npy")):
        console.code(kind)
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {file}").click()
        download.value.save_as(tmp_path / file)
    assert same(run_curl(console.code("curl"), tmp_path)["y"], answer)
    assert same(run_python(console.code("triton"), "triton", ["y"], tmp_path)["y"], answer)
    assert same(run_python(console.code("ours"), "ours", ["y"], tmp_path)["y"], answer)


def test_whole_numbers_keep_all_their_digits(console: Console) -> None:
    page = console.try_("big_ids")
    page.get_by_role("button", name="JSON", exact=True).click()
    page.get_by_role("textbox", name="Values of x as JSON").fill(
        "[[9223372036854775807, -9223372036854775808, 9007199254740993]]"
    )
    console.send()
    page.get_by_role("region", name="y", exact=True).get_by_role("button", name="Copy values").click()
    assert console.copied() == "[[9223372036854775807,-9223372036854775808,9007199254740993]]"


def test_a_nested_list_says_its_shape(console: Console) -> None:
    page = console.try_("big_ids")
    page.get_by_role("button", name="JSON", exact=True).click()
    page.get_by_role("textbox", name="Values of x as JSON").fill("[[1,2,3],\n [4,5,6]]")
    page.get_by_text("= 6 elements").wait_for()
    console.send()
    assert console.values("y") == [[1, 2, 3], [4, 5, 6]]
    assert page.get_by_role("region", name="Values of y").inner_text().split() == [
        "0",
        "1",
        "2",
        "3",
        "1",
        "4",
        "5",
        "6",
    ]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("[[1, 2]]", "the list is [1, 2], the model takes [-1, 3]"),
        ("[1, 2]", "3 values are needed for [1, 3], these are 2"),
        ("[[1, 2, 3.5]]", "character 9: expected a whole number for INT64, got 3.5"),
        ("[[1, 2, 99999999999999999999]]", "does not fit INT64"),
        ("[[1, 2,\n oops]]", "line 2, character 2: expected a whole number"),
        ("[[1, 2, 3]", "the text ends too early"),
        ('[["1", 2, 3]]', 'expected a whole number for INT64, got "1"'),
    ],
)
def test_what_is_wrong_is_said_where_it_is_typed(console: Console, typed: str, said: str) -> None:
    page = console.try_("big_ids")
    page.get_by_role("button", name="JSON", exact=True).click()
    field = page.get_by_role("textbox", name="Values of x as JSON")
    field.fill(typed)
    page.locator(".field-error").get_by_text(said).wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    page.get_by_role("button", name="Send", exact=True).click()
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    page.get_by_text("# correct the values first").wait_for()


def test_a_tensor_may_be_empty(console: Console) -> None:
    page = console.try_("simple_identity")
    page.get_by_role("button", name="JSON", exact=True).click()
    page.get_by_role("textbox", name="Values of INPUT0 as JSON").fill("[[]]")
    page.get_by_text("= 0 elements").wait_for()
    console.send()
    page.get_by_text("It is empty.").wait_for()


def test_an_answer_that_is_too_long_is_not_read(console: Console) -> None:
    page = console.try_("expand")
    shape = page.get_by_role("group", name="shape", exact=True)
    shape.get_by_role("button", name="JSON", exact=True).click()
    shape.get_by_role("textbox").fill("[3000, 3000]")
    console.send()
    page.get_by_text("The answer has more than 32 MiB").wait_for()
    shape.get_by_role("textbox").fill("[3000, 30]")
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("256 of 90,000 values are shown.").wait_for()


def test_a_long_text_is_cut_and_copied_whole(console: Console) -> None:
    page = console.try_("simple_identity")
    page.get_by_label("INPUT0, element 1").fill("long " * 1000)
    console.send()
    page.get_by_text("the first of 5,000 characters").wait_for()
    assert len(page.locator(".texts bdi").first.inner_text()) <= 2000
    assert console.values("OUTPUT0")[0][0] == "long " * 1000


def test_cancelling_leaves_the_keyboard_where_it_was(opened: Opener, served: RunningServer) -> None:
    console = opened(served, refusals=True)
    page = console.try_("simple")
    page.route("**/infer", lambda route: None)  # nobody answers
    page.get_by_role("button", name="Send", exact=True).press("Enter")
    page.get_by_role("button", name="Waiting").wait_for()
    assert page.evaluate("document.activeElement.type") == "submit"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Cancelled:").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Send"


def test_a_query_of_the_page_is_no_part_of_the_code(console: Console) -> None:
    console.page.goto(f"{console.base}/?from=a-proxy#/try/simple")
    console.page.get_by_role("heading", name="Inputs").wait_for()
    assert console.code("curl").startswith(f"curl -sS {console.base}/v2/models/simple/infer")


def test_dimensions_can_be_chosen(console: Console) -> None:
    page = console.try_("simple_identity")
    page.get_by_label("Size of dimension 1 of INPUT0").fill("2")
    page.get_by_label("Size of dimension 1 of INPUT0").press("Tab")
    page.get_by_text("= 8 elements").wait_for()
    page.get_by_label("Size of dimension 2 of INPUT0").fill("-1")
    page.get_by_label("Size of dimension 2 of INPUT0").press("Tab")
    page.locator(".field-error").get_by_text("a dimension is a whole number, 0 or more").wait_for()
    page.get_by_label("Size of dimension 2 of INPUT0").fill("99999999")
    page.get_by_label("Size of dimension 2 of INPUT0").press("Tab")
    page.locator(".field-error").get_by_text("are more than this page makes up").wait_for()


def test_inputs_of_one_size_are_given_it_together(console: Console) -> None:
    page = console.try_("simple")
    page.get_by_label("Size of dimension 1 of INPUT0").fill("3")
    page.get_by_label("Size of dimension 1 of INPUT0").press("Tab")
    page.get_by_text("= 48 elements, as INPUT0 has").wait_for()
    page.get_by_role("group", name="INPUT1", exact=True).get_by_role("textbox").fill(str([[1] * 16, [2] * 16]))
    page.get_by_text("= 32 elements, as INPUT1 has").wait_for()
    console.send()
    assert len(console.values("OUTPUT0")) == 2


def test_a_refusal_is_shown_as_the_server_said_it(opened: Opener, served: RunningServer) -> None:
    console = opened(served, refusals=True)
    page = console.try_("simple")
    # The two inputs must have as many rows; one that holds somebody's own values keeps its shape.
    page.get_by_label("INPUT1, element 16").fill("7")
    page.get_by_label("Size of dimension 1 of INPUT0").fill("3")
    page.get_by_label("Size of dimension 1 of INPUT0").press("Tab")
    console.send()
    notice = page.locator(".result .notice")
    assert "HTTP 400 · INVALID_ARGUMENT" in notice.inner_text()
    assert "batch" in notice.locator(".server-said").inner_text()
    assert "correct the value that is named" in notice.inner_text()


def test_nothing_is_sent_to_what_is_not_served(opened: Opener, served: RunningServer) -> None:
    console = opened(served, refusals=True)
    page = console.open("#/try/nosuch")
    notice = page.locator(".notice")
    notice.wait_for()
    assert "Request for unknown model: 'nosuch' is not found" in notice.inner_text()
