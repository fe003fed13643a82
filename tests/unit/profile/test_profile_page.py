"""The page and the record: self-contained, escaped whatever the model's names are, and complete."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.profile.made import cell, profile

from tensorquay_convert.profile import page, plots, record
from tensorquay_convert.profile.results import SCHEMA, Curve

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\0\x1b[31m\ud800"
VOID = {"meta", "br", "rect", "line", "circle", "polyline"}


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


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert len(set(reader.identities)) == len(reader.identities)
    return reader


def rendered(name: str = "made", node: str = "node_0", snippet: str = "") -> str:
    found = profile(name, node=node, snippet=snippet)
    return page.render(record.record(found, at="2026-01-01T00:00:00Z", command=("tensorquay", "profile", name)), found)


@pytest.mark.parametrize("name", ["made", HOSTILE, "", "x" * 5000, "日本語"])
def test_the_page_needs_nothing_and_runs_nothing(name: str) -> None:
    html = rendered(name, name)
    html.encode()
    reader = read(html)
    assert not reader.tags & {"script", "img", "link", "iframe", "object", "a", "form"}
    assert not {each for each in reader.attributes if each.startswith("on")} | (reader.attributes & {"src", "href"})
    assert "default-src 'none'" in html


def test_the_page_says_what_was_found() -> None:
    text = " ".join(read(rendered(snippet="[execution]\nintra_op_threads = 1\n")).text)
    for said in (
        "Profile of made, version 3", "Worth setting: 400 items/s", "intra_op_threads = 1", "A reason.", "80.0 %",
        "node_0_1",
        "profiling itself adds 10.0 % to a run (5.0 % to 15.0 %)", "10.0 % of a profiled run is in no node",
        "made is left out", "268 MB", "fused into others, or computed when the model is loaded: 1 made", "cuda",
    ):  # fmt: skip
        assert said in text
    assert "Nothing to set" in " ".join(read(rendered()).text)


def test_curves_of_many_threads_stay_readable() -> None:
    cells = [cell(batch, threads, batch / threads) for batch in (1, 2, 4) for threads in (1, 2, 4, 8, 16, 32, 64)]
    drawn = plots.throughput(cells, "curve")
    assert drawn.count("<polyline") == plots.MOST_CURVES
    assert "1 thread<" in drawn
    assert "64 threads<" in drawn


def test_one_batch_makes_no_curve() -> None:
    found = profile()
    alone = replace(found, curve=Curve((cell(0, 1, 0.1),), "5 rounds"))
    html = page.render(record.record(alone, at="", command=()), alone)
    assert "<polyline" not in html
    assert read(html)


@settings(max_examples=25)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_name_can_be_shown_and_recorded(name: str, node: str) -> None:
    read(rendered(name, node))
    found = profile(name, node=node)
    plain = record.record(found, at="2026-01-01T00:00:00Z", command=())
    assert plain["schema"] == SCHEMA
    assert record.read(json.loads(json.dumps(plain))) == found


def test_the_record_is_written_as_json_and_read_again(tmp_path: Path) -> None:
    record.write(tmp_path / "profile.json", record.record(profile(HOSTILE), at="now", command=("a", HOSTILE)))
    assert json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))["subject"]["opset"] == 17
    for wrong in ([], {}, {"schema": "tensorquay.profile/0"}, {"schema": SCHEMA}):
        with pytest.raises(ValueError, match=r"expected schema|Field required|required"):
            record.read(wrong)
