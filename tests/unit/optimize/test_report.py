"""The report of an optimisation: one page that needs nothing else, whatever was found and whatever names are."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcomes import HEAD, POINTS, any_outcome, encoder, judgement, nothing_helped, timings, trial
from tensorquay.config.toml_execution import ExecutionTable
from tensorquay_convert.optimize.report import console, page, parts, plots, record, scales, views, words
from tensorquay_convert.optimize.report.serving import config_toml
from tensorquay_convert.optimize.results import (
    NodeSensitivity,
    Outcome,
    OutputAgreement,
    PassReport,
    Point,
    Timing,
    Trial,
    Verdict,
)
from tensorquay_convert.optimize.variants import Family, Settings, Variant
from tensorquay_convert.report.style import CSS

HOSTILE = (
    "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\0\x1b[31m\ud800[red]" + "x" * 3000
)
VOID = {"meta", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2", "h3", "p", "ul", "li", "dl", "dt",
    "dd", "code", "pre", "strong", "small", "br", "div", "span", "figure", "figcaption", "table", "caption", "thead",
    "tbody", "tr", "th", "td", "svg", "g", "rect", "line", "path", "polyline", "text", "details", "summary",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "id", "aria-label", "aria-labelledby", "aria-hidden",
    "role", "tabindex", "scope", "viewbox", "xmlns", "x", "y", "x1", "y1", "x2", "y2", "width", "height", "d", "points",
    "text-anchor", "transform",
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.identities: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.identities += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self) -> str:
        return "".join(self.said)


def render(outcome: Outcome, **head: Any) -> str:
    return page.render(record.record(outcome, **{**HEAD, **head}), outcome)


def as_it_is() -> Trial:
    """The model before as the first of the trials, as an optimisation has it."""
    return trial("as it is", Verdict.PASSED, (1.0, 1.0, 1.0), family=Family.BASELINE, timings=encoder().noise)


def read(html: str) -> Reader:
    """The page, once it is seen to be whole, harmless and alone."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert reader.tags <= ALLOWED
    assert reader.attributes <= ATTRIBUTES
    assert len(set(reader.identities)) == len(reader.identities)
    assert not set(html) & {"\0", "\x1b", "\u202e", "\ud800"}
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|<link|<script|https?://(?!www\.w3\.org/2000/svg)", html)
    for drawn in re.findall(r"<svg class=\"plot.*?</svg>", html):
        assert ElementTree.fromstring(drawn).get("role") == "img"
        assert not re.search(r"=\"-?(nan|inf)", drawn)
    html.encode("utf-8")
    return reader


def many(count: int) -> Outcome:
    """So many variants of every verdict that was timed, layers, outputs and points that no table may hold them all."""
    points = tuple(Point(f"batch {at}", at, 0) for at in range(1, 30))
    outputs = tuple(OutputAgreement(f"output {at}", 0.9, 0.8, 1.0, 0.1, 0.5) for at in range(30))
    verdicts = (Verdict.PASSED, Verdict.NOT_FASTER, Verdict.SLOWER, Verdict.INACCURATE)
    ratios = [1.0 + at % 7 / 10 for at in range(29)]
    judged = dataclasses.replace(judgement(), outputs=outputs, failed=tuple(f"failed {at}" for at in range(9)))
    trials = [
        trial(f"variant number {at}", verdicts[at % 4], ratios, timings=timings(*ratios, points=points),
              judgement=judged, passes=tuple(PassReport(f"pass {at}", changed=True, summary="did") for at in range(9)))
        for at in range(count)
    ]  # fmt: skip
    layers = tuple(NodeSensitivity(f"/layer.{at}", "Conv", at / 1e6, bool(at % 2)) for at in range(5000))
    return encoder(
        trials=tuple(trials), winner="variant number 0", sensitivity=layers,
        warnings=tuple(f"mind {at}" for at in range(500)),
        data=dataclasses.replace(encoder().data, points=points),
    )  # fmt: skip


def test_the_winner_comes_first_and_the_page_is_whole() -> None:
    found = read(render(encoder()))
    assert "dynamic int8, per channel: 2.25 × as fast" in found.text
    titles = ["At a glance", "Variants", "Speed and accuracy", "At each batch", "Sensitivity by layer",
              "What each pass did", "The gate", "Timings", "Data", "Settings to serve it with", "Not tried", "Machine",
              "Provenance"]  # fmt: skip
    places = [found.text.index(f"{each}") for each in titles]
    assert places[0] > found.text.index("2.25 × as fast")
    for each in encoder().trials:
        assert each.variant.name in found.text
        assert each.reason in found.text
    assert "tensorquay optimize encoder --data texts.npz" in found.text
    assert "[execution]\nintra_op_threads = 2" in found.text
    assert "weights in 7 bits: this processor has no VNNI" in found.text
    assert "output 'scores': mean cosine 0.96210, at least 0.99 is asked" in found.text
    assert "the time budget of 5 min was used up" in found.text
    assert "not judged on real data" not in found.text


def test_the_page_of_a_record_is_that_of_its_outcome() -> None:
    plain = record.record(encoder(), **HEAD)
    assert page.render(plain) == page.render(plain, encoder())
    with pytest.raises(ValueError, match="expected schema"):
        page.render({})


def test_the_model_as_it_is_is_the_first_row_and_no_variant() -> None:
    outcome = encoder(trials=(as_it_is(), *encoder().trials))
    found = read(render(outcome))
    assert "10 tried, 1 not tried" in found.text
    assert found.text.count("as it is") == 1
    assert views.winner(views.rows(outcome)) == views.winner(views.rows(encoder()))
    assert console.table(outcome) == console.table(encoder())


def test_for_size_scores_are_of_bytes() -> None:
    smaller = trial("4 bit weights", Verdict.WON, (1.0, 1.0, 1.0), score=3.9, score_low=3.9, score_high=3.9,
                    judgement=judgement())  # fmt: skip
    outcome = encoder(trials=(as_it_is(), smaller), winner="4 bit weights", goals={"objective": "size"})
    found = read(render(outcome))
    assert "4 bit weights: 3.90 × smaller" in found.text
    assert "Size and accuracy" in found.text
    assert 'class="band"' not in plots.front(outcome, views.rows(outcome), views.loss(outcome), "one")
    assert console.table(outcome)[0][2] == "× smaller"


@pytest.mark.parametrize(
    ("objective", "margin"),
    [("latency", 0.02), ("throughput", 0.08), ("balanced", math.sqrt(1.02 * 1.08) - 1), ("size", None), (7, 0.0495)],
)
def test_the_grey_band_is_the_noise_that_decides(objective: object, margin: float | None) -> None:
    base = encoder().noise[0]
    noise = (
        dataclasses.replace(base, point="a", batch=1, low=0.99, high=1.02),
        dataclasses.replace(base, point="b", batch=8, low=1 / 1.08, high=1.03),
    )
    outcome = encoder(noise=noise, goals={"objective": objective})
    band = views.noise(outcome)
    assert (band is None) is (margin is None)
    if band is not None and margin is not None:
        assert band == pytest.approx((1 / (1 + margin), 1 + margin), rel=1e-4)
        assert f"± {margin:.1%}".replace("%", " %") in read(render(outcome)).text
    assert views.noise(encoder(noise=())) is None


def test_that_data_was_not_real_is_said_once() -> None:
    lines = ("accuracy was not judged on real data: give some", "mind this", "mind this")
    outcome = dataclasses.replace(nothing_helped(), warnings=lines)
    assert views.warnings(outcome) == (views.NOT_REAL, "mind this")


def test_a_model_that_is_left_as_it_was_says_so() -> None:
    html = render(nothing_helped())
    found = read(html)
    assert "Left as it wasNothing that was tried is faster here by more than the noise" in found.text
    assert "Accuracy was not judged on real data" in found.text
    assert "<title>Optimization of encoder: left as it was</title>" in html
    assert "Settings to serve it with" not in found.text
    assert "At each batch" not in found.text


def test_hostile_names_stay_text() -> None:
    bad = PassReport(HOSTILE, changed=True, summary=HOSTILE, fused={HOSTILE: 1}, kept=(HOSTILE,), notes=(HOSTILE,))
    output = OutputAgreement(HOSTILE, 0.5, 0.4, 1.0, 1.0, 0.5, problem=HOSTILE)
    judged = dataclasses.replace(
        judgement(), outputs=(output,), rule=HOSTILE, failed=(HOSTILE,), metric=HOSTILE, metric_value=0.5,
        metric_baseline=0.6,
    )  # fmt: skip
    hostile = trial(HOSTILE, Verdict.WON, (2.0, 2.1, 2.2), passes=(bad,), judgement=judged, reason=HOSTILE,
                    nodes={HOSTILE: 3})  # fmt: skip
    moved = tuple(dataclasses.replace(each, point=HOSTILE) for each in hostile.timings)
    skipped = trial(HOSTILE + "2", Verdict.NOT_TRIED, reason=HOSTILE, timings=())
    base = encoder()
    outcome = encoder(
        subject=dataclasses.replace(base.subject, name=HOSTILE, operators={HOSTILE: 1}, inputs={HOSTILE: HOSTILE},
                                    outputs={HOSTILE: HOSTILE}, notes=(HOSTILE,), sha256=HOSTILE),
        data=dataclasses.replace(base.data, notes=(HOSTILE,), points=(Point(HOSTILE, 1, 0),)),
        goals={HOSTILE: {HOSTILE: [HOSTILE]}},
        machine=dataclasses.replace(base.machine, cpu=HOSTILE, gpu=HOSTILE, driver=HOSTILE, onnxruntime=HOSTILE),
        winner=HOSTILE, sentence=HOSTILE, warnings=(HOSTILE,), trials=(hostile, skipped,
        dataclasses.replace(hostile, variant=Variant("other", Family.HALF), timings=(*hostile.timings, *moved))),
        sensitivity=(NodeSensitivity(HOSTILE, HOSTILE, 0.1, True),),
        settings=Settings(provider=HOSTILE, provider_options={HOSTILE: HOSTILE}, session_options={HOSTILE: HOSTILE}),
        noise=moved,
    )  # fmt: skip
    found = read(render(outcome, model=HOSTILE, command=[HOSTILE], baseline={HOSTILE: HOSTILE}))
    assert "<script>alert(1)</script>" in found.text
    assert len(found.text) < 60_000
    _, rows = console.table(outcome)
    said = "".join("".join(each) for each in rows) + "".join(console.lines(outcome))
    assert not set(said) & {"\0", "\x1b", "\u202e", "\ud800"}
    assert max(len(cell) for row in rows for cell in row) < 400


@settings(max_examples=60)
@given(any_outcome(st.text(max_size=20) | st.sampled_from(["<b>", "]]>", "&amp;", "'\"", HOSTILE])))
def test_any_outcome_gives_a_whole_page(outcome: Outcome) -> None:
    read(render(outcome))


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.floats()] * 9), max_size=6), st.floats(), st.none() | st.floats())
def test_numbers_that_are_none_do_not_break_it(rows: list[tuple[float, ...]], loss: float, score: float | None) -> None:
    """Outcomes hold numbers or None; a report after an hour's work does not fail on what slipped through."""
    found = tuple(Timing(POINTS[at % 3].name, at, at, *each[:7]) for at, each in enumerate(rows))
    output = OutputAgreement("y", loss, score, loss, score, loss, relative_error=loss)
    judged = dataclasses.replace(judgement(), outputs=(output,), metric_value=score, metric_baseline=loss)
    one = trial("x", Verdict.WON, judgement=judged, timings=found, score=loss, score_low=score, score_high=loss)
    outcome = encoder(
        trials=(one, dataclasses.replace(one, variant=Variant("y", Family.HALF))), winner="x", noise=found,
        sensitivity=(NodeSensitivity("n", "Conv", loss, quantized=True),), seconds=loss,
    )  # fmt: skip
    read(render(outcome))
    console.table(outcome)
    console.lines(outcome)


def test_little_is_enough() -> None:
    bare = Trial(Variant("bare", Family.RUNTIME), Verdict.FAILED, "it fell")
    outcome = encoder(
        trials=(bare,), noise=(), sensitivity=(), warnings=(), winner="", sentence="", settings=Settings(), goals={},
        data=dataclasses.replace(encoder().data, points=()),
    )  # fmt: skip
    found = read(page.render({}, outcome))
    assert "bare" in found.text
    assert "it fell" in found.text
    assert read(render(encoder(trials=(), noise=(), sensitivity=())))


def test_a_winner_without_a_trial_is_still_named() -> None:
    assert "lost in a crash" in read(render(encoder(winner="lost in a crash"))).text


def test_large_outcomes_stay_readable_and_say_what_is_cut() -> None:
    html = render(many(130))
    found = read(html)
    assert len(html) < 1_000_000
    assert "30 more variants in optimization.json" in found.text
    assert f"{130 * 30 - parts.MAX_ROWS:,} more rows in optimization.json" in found.text
    assert "4960 that cost least are in optimization.json" in found.text
    assert "460 more in optimization.json" in found.text
    assert html.count(">kept FP32</text>") + html.count(">quantized</text>") == plots.MAX_LAYERS


def test_forty_variants_are_all_named() -> None:
    html = render(many(40))
    text = read(html).text
    assert all(f"variant number {at}" in text for at in range(40))
    _, rows = console.table(many(40))
    assert [row[0] for row in rows][:2] == ["as it is", "variant number 0"]
    assert len(rows) == 41


def test_the_front_tells_verdicts_by_shape_and_names_the_winner() -> None:
    outcome = encoder()
    rows, loss = views.rows(outcome), views.loss(outcome)
    svg = ElementTree.fromstring(plots.front(outcome, rows, loss, "one"))
    shapes = {path.get("class"): path.get("d") for path in svg.iter(f"{SVG}path")}
    assert set(shapes) == {"won", "dot", "idle", "bad"}
    assert len(set(shapes.values())) == 4
    assert "1. dynamic int8, per channel" in [each.text for each in svg.iter(f"{SVG}text")]
    assert [each.get("class") for each in svg.iter(f"{SVG}rect")] == ["band"]
    assert [each.get("class") for each in svg.iter(f"{SVG}line")].count("limit") == 1
    titles = [each.text or "" for each in svg.iter(f"{SVG}title")]
    assert "1. dynamic int8, per channel: 2.25 × (2.18 to 2.31), 1 − mean cosine 0.00688, won" in titles


def test_the_front_has_what_is_right_above_the_gate_and_what_is_wrong_below() -> None:
    svg = plots.front(encoder(), views.rows(encoder()), views.loss(encoder()), "one")
    limit = float(re.findall(r'class="limit" x1="[\d.]+" y1="([\d.]+)"', svg)[0])
    good = [float(y) for y in re.findall(r'class="(?:won|dot)" transform="translate\([\d.]+ ([\d.]+)\)', svg)]
    bad = [float(y) for y in re.findall(r'class="bad" transform="translate\([\d.]+ ([\d.]+)\)', svg)]
    assert len(good) == 4
    assert len(bad) == 2
    assert max(good) < limit < min(bad)


@pytest.mark.parametrize(
    ("metric", "value", "before", "name", "lost"),
    [
        ("top1", 0.99, 0.995, "top1 lost", 0.005),
        ("top1", 1.0, 0.99, "top1 lost", -0.01),
        ("rmse", 1.1, 1.0, "increase of rmse, relative", 0.1),
        ("mae", 0.0, 0.0, "increase of mae, relative", 0.0),
        ("mae", 0.1, 0.0, "increase of mae, relative", math.inf),
    ],
)
def test_with_labels_the_loss_is_the_metrics(metric: str, value: float, before: float, name: str, lost: float) -> None:
    judged = judgement(0.5, metric=metric, metric_value=value, metric_baseline=before)
    outcome = encoder(trials=(trial("x", Verdict.WON, (2.0,), judgement=judged),), goals={"gate": {"max_drop": 0.02}})
    loss = views.loss(outcome)
    assert (loss.name, loss.allowed) == (name, 0.02)
    assert loss.of(judged) == pytest.approx(lost)
    assert f"{metric} {words.exact(value)}" in read(render(outcome)).text


def test_without_directions_the_loss_is_what_there_is() -> None:
    def of(**numbers: float | None) -> views.Loss:
        output = dataclasses.replace(OutputAgreement("y", None, None, 1.0, 1.0, None), **numbers)  # type: ignore[arg-type]
        judged = dataclasses.replace(judgement(), outputs=(output,))
        return views.loss(encoder(trials=(trial("x", Verdict.WON, (2.0,), judgement=judged),), goals={}))

    assert of(cosine=0.9).kind == "cosine"
    assert of(relative_error=0.1).kind == "relative"
    assert of(top1=0.1).kind == "top1"
    assert views.loss(encoder(trials=())).of(None) is None


def test_new_nans_are_the_worst_of_losses() -> None:
    judged = judgement()
    judged = dataclasses.replace(judged, outputs=(dataclasses.replace(judged.outputs[0], nonfinite=3),))
    outcome = encoder(trials=(trial("x", Verdict.INACCURATE, (2.0,), judgement=judged),))
    assert views.loss(outcome).of(judged) == math.inf
    assert "3 NaN or infinite" in read(render(outcome)).text


def test_curves_have_the_winner_the_best_and_their_bounds() -> None:
    outcome = encoder()
    svg = ElementTree.fromstring(plots.curves(outcome, views.rows(outcome), "one"))
    lines = list(svg.iter(f"{SVG}polyline"))
    assert [each.get("class") for each in lines] == [f"series s{at}" for at in range(plots.MAX_CURVES)]
    assert all(len((each.get("points") or "").split()) == 3 for each in lines)
    said = [each.text or "" for each in svg.iter(f"{SVG}text")]
    assert "1. dynamic int8, per channel" in said
    assert {"batch 32", "seq 128"} <= set(said)
    titles = [each.text for each in svg.iter(f"{SVG}title")]
    assert "1. dynamic int8, per channel, batch 32, seq 128: 2.31 × (2.22 to 2.40)" in titles
    # What failed the gate is drawn only where nothing that passed it is left.
    assert not any("per tensor" in (each or "") for each in titles)
    assert plots.curves(nothing_helped(), views.rows(nothing_helped()), "one") == ""
    # The winner's star and line are nobody else's.
    without = dataclasses.replace(outcome, winner="")
    drawn = plots.curves(without, views.rows(without), "one")
    assert re.findall(r'polyline class="series (s\d)', drawn) == ["s1", "s2", "s3", "s4"]


def test_layers_are_sorted_and_say_what_became_of_them() -> None:
    layers = (
        NodeSensitivity("/a", "Conv", 1e-4, quantized=True),
        NodeSensitivity("/b", "Gemm", 0.2, quantized=False),
        NodeSensitivity("/c", "Conv", 0.0, quantized=True),
        NodeSensitivity("/d", "Conv", -0.01, quantized=True),
    )
    svg = ElementTree.fromstring(plots.sensitivity(layers, "one"))
    names = [each.text for each in svg.iter(f"{SVG}text") if each.get("class") == "name"]
    assert names == ["/b", "/a", "/c", "/d"]
    bars = [(each.get("class"), float(each.get("width") or 0)) for each in svg.iter(f"{SVG}rect")]
    assert [kind for kind, _ in bars] == ["kept", "bar", "bar", "bar"]
    assert [width for _, width in bars] == sorted((width for _, width in bars), reverse=True)
    assert plots.sensitivity((), "one") == ""


def test_the_console_has_a_line_for_each_point() -> None:
    headers, rows = console.table(encoder())
    first = dict(zip(headers, rows[1], strict=True))
    assert first["variant"] == "dynamic int8, per channel"
    assert first["at"].split("\n") == [each.name for each in POINTS]
    assert first["× there"].split("\n")[2] == "2.31 × (2.22 to 2.40)"
    assert first["answers"].split("\n") == ["cosine 0.99312", "top-1 same 96.88 %"]
    assert (first["fused, quantized"], first["size"], first["verdict"]) == ("0, 37", "23.0 MB", "won")
    baseline = dict(zip(headers, rows[0], strict=True))
    assert baseline["p50"].split("\n")[0] == "4.20 ms"
    assert len(rows) == 1 + sum(each.verdict is not Verdict.NOT_TRIED for each in encoder().trials)


def test_the_consoles_lines_say_the_result_and_what_to_mind() -> None:
    lines = console.lines(encoder())
    assert lines[0] == "dynamic int8, per channel is 2.24 × as fast as the model before at mean cosine 0.993"
    assert "slower: 4 bit weights: because it is slower" in lines
    assert "not tried: static int8, entropy: the time budget of 5 min was used up" in lines
    assert lines[-2] == "  intra_op_threads = 2"
    assert any(
        each.startswith("warning: accuracy was not judged on real data") for each in console.lines(nothing_helped())
    )


def test_settings_are_toml_that_says_what_they_are() -> None:
    assert config_toml(Settings()) == ""
    found = tomllib.loads(config_toml(Settings(provider="cuda", intra_op_threads=3, graph_optimization="extended")))
    assert found == {
        "execution": {"providers": ["cuda", "cpu"], "graph_optimization": "extended", "intra_op_threads": 3}
    }
    all_of_them = Settings(
        provider="tensorrt", provider_options={"trt_fp16_enable": "1"}, parallel=True, inter_op_threads=2,
        spinning=True, session_options={"session.x": "y"},
    )  # fmt: skip
    # A server takes it as it is.
    ExecutionTable.model_validate(tomllib.loads(config_toml(all_of_them))["execution"])
    assert tomllib.loads(config_toml(all_of_them)) == {
        "execution": {
            "parallel": True,
            "inter_op_threads": 2,
            "spinning": True,
            "session_options": {"session.x": "y"},
            "provider": [{"name": "tensorrt", "options": {"trt_fp16_enable": "1"}}, {"name": "cuda"}, {"name": "cpu"}],
        }
    }


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_any_option_is_quoted(options: dict[str, str]) -> None:
    said = config_toml(Settings(provider="cuda", provider_options=options, session_options=options))
    found = tomllib.loads(said)["execution"]
    assert found.get("session_options", {}) == options


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8))
def test_ratios_keep_their_order_on_the_axis(values: list[float]) -> None:
    axis = scales.ratios(values, 0.0, 100.0)
    places = [axis.at(each) for each in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= each <= 100 for each in places)
    assert 2 <= len(axis.ticks()) <= 20
    assert axis.at(axis.low) == 0
    assert axis.at(axis.high) == pytest.approx(100)


@given(st.lists(st.floats(-1, 10), max_size=8))
def test_losses_keep_their_order_on_the_axis(values: list[float]) -> None:
    axis = scales.losses(values, 20.0, 100.0, 0.0)
    places = [axis.at(each) for each in sorted(values)]
    assert places == sorted(places)
    assert all(each == 0 or 20 <= each <= 100 for each in places)
    assert 3 <= len(axis.ticks()) <= 12


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.duration(0.00006812), "68.1 µs"),
        (words.duration(0.9996), "1.00 s"),
        (words.duration(184), "3 min 4 s"),
        (words.duration(119.7), "2 min 0 s"),
        (words.duration(0), "0 µs"),
        (words.duration(None), ""),
        (words.size(999), "999 B"),
        (words.size(1_470_000), "1.47 MB"),
        (words.size(10**400)[-3:], " TB"),
        (words.times(0.2), "0.20 ×"),
        (words.times(12.34), "12.3 ×"),
        (words.exact(0.9999999), ">0.999999"),
        (words.exact(1.0), "1"),
        (words.small(math.inf), "infinite"),
        (words.small(3e-7), "3.00e-07"),
        (words.counted(1, "node"), "1 node"),
    ],
)
def test_numbers_are_said_as_people_read_them(said: str, expected: str) -> None:
    assert said == expected


def _luminance(colour: str) -> float:
    colour = colour * 2 if len(colour) == 3 else colour
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4
        for each in (int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_what_is_written_and_drawn_has_contrast(theme: int) -> None:
    """WCAG 2.2, 1.4.3 (text, 4.5 to 1) and 1.4.11 (what is drawn, 3 to 1)."""
    colours = dict(re.findall(r"--([\w-]+):#([0-9a-f]+)", re.findall(r":root\{([^}]*)\}", CSS)[theme]))
    text = [("text", "warn-back"), ("dim", "good-back"), ("text", "band"), ("dim", "code"), ("text", "code")]
    drawn = [(each, "card") for each in ("good", "dot", "limit", "plum", "sea", "bad", "dim")]
    for least, pairs in ((4.5, text), (3.0, drawn)):
        for pair in pairs:
            light, dark = sorted((_luminance(colours[each]) for each in pair), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, pair
