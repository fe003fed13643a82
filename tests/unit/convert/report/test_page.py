"""The report: one page that needs nothing else, whatever the model's names are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_convert.proof.verification import AxisProof, Case, Comparison, Culprit, Sample, Verification
from tensorquay_convert.report import page, plots
from tensorquay_convert.report.style import CSS

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\0\x1b[31m"
VOID = {"meta", "br", "rect", "line", "circle", "path"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2", "h3", "p", "ul", "li", "dl", "dt",
    "dd", "code", "strong", "small", "br", "div", "span", "figure", "figcaption", "table", "caption", "thead", "tbody",
    "tr", "th", "td", "svg", "g", "rect", "line", "circle", "path", "text",
}  # fmt: skip


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.identities: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.identities += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def comparison(output: str = "y", error: float = 1e-6, *, within: bool = True, problem: str = "") -> Comparison:
    return Comparison(
        output, "float32", (2, 3), error, error, (0, 1), 1.0, 1.0 + error, 0.999999, 1.0, 1e-4, 1e-4, within, problem
    )


def proof(name: str = "y", *, failed: bool = False, **more: Any) -> Verification:
    error = 0.5 if failed else 1e-6
    case = Case(name, "seeded", {name: 2}, (comparison(name, error, within=not failed, problem=failed * name),))
    outside = Case("odd", "seeded", {}, (), problem=f"the source does not take it {name}", outside=True)
    given: dict[str, Any] = {
        "cases": (case, outside),
        "axes": (AxisProof(name, (name,), (1, 2), not failed, failed * name),),
        "problems": (f"problem {name}",) if failed else (),
        "culprit": Culprit(name, name, name, 0.5, f"sentence {name}", True, (), name) if failed else None,
        "advice": name if failed else "",
        "seed": 0,
        "real_inputs": False,
        "runtime": "onnxruntime",
        "seconds": 1.5,
        "notes": (name,),
        "samples": (Sample(name, name, (0.0, 1.0), (0.0, 1.0 + error), ((None, 5), (-6, 1))),),
    }
    return Verification(**{**given, **more})


def provenance(name: str = "m") -> Mapping[str, Any]:
    return {
        "model": name,
        "schema": "tensorquay.provenance/1",
        "imported_at": "2026-11-21T10:00:00Z",
        "source": {"shown": name, "sha256": "ab" * 32, "files": [{"path": name, "bytes": 1, "sha256": "cd" * 32}]},
        "conversion": {"exporter": name, "opset": 20, "attempts": [name], "notes": []},
        "environment": {"packages": {name: "1"}},
        "command": ["tensorquay", "import", name],
        "files": [{"path": name, "bytes": 5, "sha256": "ef" * 32}],
    }


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("failed", [False, True])
def test_hostile_names_stay_text(failed: bool) -> None:
    html = page.render(provenance(HOSTILE), proof(HOSTILE, failed=failed))
    found = read(html)
    assert found.tags <= ALLOWED
    assert not [name for name in found.attributes if name.startswith("on") or name in {"src", "href", "style"}]
    assert not set(html) & {"\0", "\x1b", "\u202e"}
    assert "<script>alert(1)</script>" in "".join(found.text)


@given(st.text(max_size=60))
def test_any_name_gives_a_whole_page(name: str) -> None:
    found = read(page.render(provenance(name), proof(name, failed=True)))
    assert found.tags <= ALLOWED
    assert len(set(found.identities)) == len(found.identities)


def test_the_page_needs_nothing_else() -> None:
    html = page.render(provenance(), proof())
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|<link|<script|https?://(?!www\.w3\.org/2000/svg)", html)
    assert "prefers-color-scheme:dark" in html
    assert html.startswith("<!doctype html>")


def test_the_verdict_comes_first() -> None:
    good = "".join(read(page.render(provenance(), proof())).text)
    assert "PassedProven equal on 1 cases at y 1 to 2; largest absolute error 1.00e-06." in good
    assert "What is wrong" not in good
    bad = "".join(read(page.render(provenance(), proof(failed=True))).text)
    assert "RefusedNot equal: problem y." in bad
    assert bad.index("What to try") < bad.index("How far the outputs are off") < bad.index("Provenance")


def test_plots_have_titles_and_both_shapes() -> None:
    cases = [
        Case("good", "seeded", {}, (comparison(error=0.0),)),
        Case("bad", "seeded", {}, (comparison(error=3.0, within=False),)),
        Case("infinite", "seeded", {}, (comparison(error=math.inf, within=False),)),
        Case("none", "seeded", {}, (comparison(error=math.nan, within=False, problem="shape"),)),
    ]
    svg = ElementTree.fromstring(plots.errors("y", cases, "one"))
    space = "{http://www.w3.org/2000/svg}"
    assert svg.get("role") == "img"
    titles = [each.text for each in svg.iter(f"{space}title")]
    assert titles[0] == "Largest absolute error of y in each case, and the tolerance there"
    assert len(titles) == 5
    assert len(list(svg.iter(f"{space}circle"))) == 1
    assert len(list(svg.iter(f"{space}path"))) == 2
    assert plots.errors("z", cases, "two") == ""


def test_what_failed_is_plotted_when_there_is_no_room_for_all() -> None:
    cases = [Case(f"case {at}", "seeded", {}, (comparison(),)) for at in range(100)]
    cases.append(Case("the bad one", "seeded", {}, (comparison(within=False),)))
    assert "the bad one" in plots.errors("y", cases, "one")
    assert plots.errors("y", cases, "one").count('class="name"') == plots.MAX_ROWS


_POINTS = st.lists(st.tuples(st.floats(), st.floats()), max_size=20)


@given(_POINTS, st.dictionaries(st.none() | st.integers(-320, 300), st.integers(0, 10**9), max_size=30))
def test_every_sample_can_be_drawn(points: list[tuple[float, float]], counts: dict[int | None, int]) -> None:
    sample = Sample("y", "case", tuple(x for x, _ in points), tuple(y for _, y in points), tuple(counts.items()))
    for drawn in (plots.scatter(sample, "one"), plots.histogram(sample, "two")):
        if drawn:
            ElementTree.fromstring(drawn)
            assert "nan" not in drawn
            assert "inf" not in drawn


def test_little_is_enough() -> None:
    nothing = proof(cases=(), axes=(), samples=(), notes=(), problems=("the model does not load",), culprit=None)
    assert "the model does not load" in "".join(read(page.render({}, nothing)).text)


def test_large_proofs_stay_readable() -> None:
    many = tuple(Case(f"case {at}", "seeded", {}, (comparison(),)) for at in range(1000))
    html = page.render({"source": {"files": ["x" * 5000] * 1000}}, proof(cases=many))
    assert len(html) < 400_000
    assert "600 more rows are in verification.json" in html


def _luminance(colour: str) -> float:
    colour = colour * 2 if len(colour) == 3 else colour
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(theme: int) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    block = re.findall(r":root\{([^}]*)\}", CSS)[theme]
    colours = dict(re.findall(r"--([\w-]+):#([0-9a-f]+)", block))
    for text, back in (
        ("text", "page"), ("text", "card"), ("dim", "card"), ("dim", "page"), ("good", "card"), ("bad", "card"),
        ("good", "good-back"), ("bad", "bad-back"), ("text", "good-back"), ("text", "bad-back"), ("text", "code"),
    ):  # fmt: skip
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[back])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)
