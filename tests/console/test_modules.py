"""The page's arithmetic, asked in the browser that runs it: numbers as text, tensors as bytes, events out of pieces."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.console.browsing import Console, browse

pytestmark = pytest.mark.browser

# One page for all examples of a law: the modules hold nothing.
MANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def page(browser: Any, served: Any) -> Any:
    """A page whose modules are asked."""
    with browse(browser, served.url) as console:
        console.open()
        yield console


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("rate(0)", "0"),
        ("rate(0.004)", "< 0.01"),
        ("rate(3.14159)", "3.14"),
        ("rate(99.96)", "100"),
        ("rate(1234.5)", "1,235"),
        ("rate(123456)", "123 k"),
        ("rate(12345678)", "12.35 M"),
        ("rate(null)", "–"),
        ("number(9.999)", "10"),
        ("number(NaN)", "–"),
        ("duration(0.0421)", "42 µs"),
        ("duration(0.0042)", "4.2 µs"),
        ("duration(3.2)", "3.2 ms"),
        ("duration(999.9)", "1,000 ms"),
        ("duration(1500)", "1.5 s"),
        ("duration(90000)", "1.5 min"),
        ("bytes(0)", "0 B"),
        ("bytes(1023)", "1,023 B"),
        ("bytes(1536)", "1.5 KiB"),
        ("bytes(5 * 2 ** 40)", "5 TiB"),
        ("percent(0.0004)", "< 0.1 %"),
        ("percent(0.123)", "12 %"),
        ("percent(1)", "100 %"),
        ("age(59400)", "59 s"),
        ("age(61000)", "1 min 1 s"),
        ("age(3660000)", "1 h 1 min"),
        ("age(90000000)", "1 d 1 h"),
        ("age(-5)", "0 s"),
        ("words('QUEUE_FULL')", "Queue full"),
        ("plural(1, 'version')", "1 version"),
        ("plural(1200, 'version')", "1,200 versions"),
        ("shape([-1, 3])", "[-1, 3]"),
    ],
)
def test_numbers_are_told_as_people_read_them(page: Console, call: str, expected: str) -> None:
    assert page.run(f"async () => {{ const m = await load('format.js'); return m.{call}; }}") == expected


@pytest.mark.parametrize(
    ("name", "datatype", "expected"),
    [
        ("attention_mask", "INT64", "ones"),
        ("token_type_ids", "INT32", "zeros"),
        ("input_ids", "INT64", "random"),
        ("mask", "FP32", "random"),
    ],
)
def test_an_input_begins_with_what_its_name_asks_for(page: Console, name: str, datatype: str, expected: str) -> None:
    spec = {"name": name, "datatype": datatype}
    assert page.run("async (spec) => (await load('samples.js')).firstFill(spec)", spec) == expected


PACK = """async ([datatype, text]) => {
    const { pack, parseValues } = await load('tensors.js');
    return [...pack(datatype, parseValues(text, datatype).values)];
}"""

UNPACK = """async ([datatype, bytes]) => {
    const { unpack, valuesText } = await load('tensors.js');
    const values = unpack(datatype, new Uint8Array(bytes));
    return valuesText(values, [values.length]);
}"""

DTYPES = {
    "FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip


@pytest.mark.parametrize("datatype", DTYPES)
@MANY
@given(data=st.data())
def test_what_numpy_packs_is_what_the_page_packs(page: Console, datatype: str, data: st.DataObject) -> None:
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "f":
        numbers = st.floats(width=dtype.itemsize * 8, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    else:
        numbers = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    values = data.draw(st.lists(numbers, min_size=1, max_size=8))
    packed = page.run(PACK, [datatype, json.dumps(values)])
    assert bytes(packed) == np.array(values, dtype).tobytes()
    back = json.loads(page.run(UNPACK, [datatype, packed]))
    assert np.array(back, dtype).tobytes() == np.array(values, dtype).tobytes()


@MANY
@given(value=st.floats(-70000, 70000))
def test_halves_are_rounded_as_numpy_rounds_them(page: Console, value: float) -> None:
    got = page.run("async (value) => (await load('tensors.js')).toHalf(value)", value)
    with np.errstate(over="ignore"):
        assert got == int(np.array(value, np.float64).astype(np.float16).view(np.uint16))


@MANY
@given(texts=st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12), min_size=1, max_size=5))
def test_texts_keep_every_character(page: Console, texts: list[str]) -> None:
    packed = bytes(page.run(PACK, ["BYTES", json.dumps(texts)]))
    expected = b"".join(len(raw).to_bytes(4, "little") + raw for raw in (text.encode() for text in texts))
    assert packed == expected
    assert json.loads(page.run(UNPACK, ["BYTES", list(packed)])) == texts


def test_bytes_that_are_no_text_are_shown_as_such(page: Console) -> None:
    assert page.run(UNPACK, ["BYTES", [2, 0, 0, 0, 0xFF, 0xFE]]) == '["0xfffe"]'


@MANY
@given(text=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=30))
def test_a_shell_and_python_read_back_what_was_written(page: Console, text: str) -> None:
    word, literal, part = page.run(
        "async (text) => { const m = await load('snippets.js');"
        " return [m.shellWord(text), m.pythonText(text), m.pathPart(text)]; }",
        text,
    )
    from ast import literal_eval
    from urllib.parse import unquote

    assert literal_eval(literal) == text
    assert literal.isascii()
    assert unquote(part) == text
    echoed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert echoed.decode() == text


@MANY
@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_events_come_whole_however_they_are_cut(page: Console, cuts: list[int]) -> None:
    stream = (
        ': hello\r\n\r\nevent: a\ndata: {"x":\ndata: 1}\n\ndata:plain\n\nevent: b\n\nevent: c\ndata: 2\n\ndata: never'
    )
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(at)]
    events = page.run(
        "async (pieces) => { const { EventParser } = await load('sse.js'); const parser = new EventParser();"
        " return pieces.flatMap((piece) => parser.push(piece)); }",
        pieces,
    )
    assert events == [
        {"name": "a", "data": '{"x":\n1}'}, {"name": "message", "data": "plain"}, {"name": "c", "data": "2"},
    ]  # fmt: skip


def test_lines_have_gaps_where_nothing_was_measured(page: Console) -> None:
    times = [0, 1000, 2000, 10_000, 11_000, 12_000]
    points = [{"at": at, "value": None if at == 11_000 else 1} for at in times]
    runs = page.run("async (points) => (await load('series.js')).runs(points)", points)
    assert [[each["at"] for each in run] for run in runs] == [[0, 1000, 2000], [10_000], [12_000]]
    # A point that was measured over ten seconds is of all of them.
    slow = [{"at": at, "seconds": s, "value": 1} for at, s in ((0, 1), (1000, 1), (11_000, 10), (12_000, 1))]
    assert len(page.run("async (points) => (await load('series.js')).runs(points)", slow)) == 1
    # Old points that were thinned are no gaps.
    thinned = [{"at": at, "value": 1} for at in (0, 5000, 10_000, 11_000, 12_000)]
    assert len(page.run("async (points) => (await load('series.js')).runs(points)", thinned)) == 1


def test_versions_that_failed_for_one_reason_are_one_problem(page: Console) -> None:
    states = {"1": "bad", "2": "bad", "3": "worse", "4": "", "5": ""}
    versions = [
        {"version": number, "state": "UNAVAILABLE" if reason else "READY", "reason": reason}
        for number, reason in states.items()
    ]
    found = page.run(
        "async (versions) => (await load('problems.js')).problems({"
        " models: new Map([['m', { name: 'm', versions }]]), latest: null, points: [] })",
        versions,
    )
    assert [(each["title"], each["text"], each["version"]) for each in found] == [
        ("m, versions 1, 2, failed to load. Versions 4, 5 serve.", "bad", "1"),
        ("m, version 3, failed to load. Versions 4, 5 serve.", "worse", "3"),
    ]


@pytest.mark.parametrize("interval", [1, 3, 4, 20, 30])
def test_rare_figures_say_as_much_as_frequent_ones(page: Console, interval: int) -> None:
    """A server with very many busy versions looks at them every thirty seconds, not every second."""
    found, late = page.run(
        """async (interval) => {
            const [{ problems }, { Store }] = await Promise.all([load('problems.js'), load('store.js')]);
            const store = new Store();
            for (let at = 0; at < 300; at += interval) {
                const times = { queue_ms: { p50: 400 }, compute_ms: { p50: 10 } };
                const versions = [{ model: 'm', version: '1', failures_per_s: { QUEUE_FULL: 2 }, ...times }];
                store.take('figures', { at_ms: 1000 * at, seconds: interval, server: {}, versions }, 0);
            }
            const texts = problems(store).map((each) => each.title + ' ' + each.text);
            const allowed = Math.max(3000, 2000 * interval);
            return [texts, [allowed - 1, allowed + 1].map((ms) => store.overdue(ms))];
        }""",
        interval,
    )
    span = {20: 40, 4: 32}.get(interval, 30)
    assert found == [
        f"m, version 1, fails requests: queue full. {2 * span} in the last {span} seconds.",
        "m, version 1: requests wait longer than they run. Half of them wait 400 ms or more for 10 ms of work: it is "
        "asked for more than it can do.",
    ]
    assert late == [False, True]


def test_a_mean_is_over_time_and_not_over_points(page: Console) -> None:
    got = page.run(
        """async () => {
            const { lately, mean } = await load('series.js');
            const points = [[30, 100], [60, 1], [61, 31]].map(
                ([at, value], i, all) => ({ at_ms: 1000 * at, seconds: at - (all[i - 1]?.[0] ?? 0), value }));
            const { points: found, seconds } = lately(points, 10000);
            return [found.length, seconds, mean(found), mean([]), lately([], 10000)];
        }"""
    )
    assert got == [2, 31, (30 * 1 + 31) / 31, None, {"points": [], "seconds": 10}]


def test_how_often_a_model_is_asked_now_is_of_the_time_that_is_told(page: Console) -> None:
    told = page.run(
        """async () => {
            const { unloadModel } = await load('model-actions.js');
            const points = [1000, 2].map((rate, i) => ({ at_ms: 20000 * i, seconds: 20,
                versions: [{ model: 'm', version: '1', requests_per_s: rate }] }));
            unloadModel({ name: 'm', versions: [{ version: '1', state: 'READY' }] }, { points });
            const dialog = document.querySelector('dialog[open]');
            const text = dialog.querySelector('.warn-line').textContent;
            dialog.close();
            return text;
        }"""
    )
    assert told == "It is asked now: 2 requests a second in the last 20 seconds."


def test_a_clock_that_is_set_back_makes_nothing_recent(page: Console) -> None:
    got = page.run(
        """async () => {
            const [{ problems }, { Store }] = await Promise.all([load('problems.js'), load('store.js')]);
            const store = new Store();
            const take = (at, failures) => store.take('figures', { at_ms: 1000 * at, seconds: 1, server: {},
                versions: [{ model: 'm', version: '1', failures_per_s: failures }] }, 0);
            for (let at = 0; at < 300; at += 1) take(36000 + at, { BACKEND: 7 });
            for (let at = 0; at < 40; at += 1) take(32400 + at, {});
            const live = [store.points.length, problems(store).length];
            store.take('history', { points: [36000, 36001, 32400].map(
                (at) => ({ at_ms: 1000 * at, seconds: 1, server: {}, versions: [] })) }, 0);
            return [...live, store.points.length];
        }"""
    )
    assert got == [40, 0, 1]


def test_a_model_that_goes_takes_its_charts_with_it(page: Console) -> None:
    got = page.run(
        """async () => {
            const [{ ModelPage }, { Store }] = await Promise.all([load('page-model.js'), load('store.js')]);
            const store = new Store();
            const version = { version: '1', state: 'READY', reason: '', providers: {}, inline: null };
            const told = [[{ name: 'digits', versions: [version] }], [], [{ name: 'digits', versions: [version] }]];
            const page = new ModelPage(store, { model: 'digits', version: '' });
            const shown = told.map((models) => {
                store.take('models', { models, may_load: false }, 0);
                return page.element.querySelectorAll('.charts, .details').length;
            });
            page.leave();
            return shown;
        }"""
    )
    assert got == [2, 0, 2]


@MANY
@given(data=st.data(), sizes=st.tuples(*[st.integers(1, 24)] * 4), channels=st.sampled_from([1, 3]))
def test_a_picture_is_resized_as_pillow_does(
    page: Console, data: st.DataObject, sizes: tuple[int, ...], channels: int
) -> None:
    width, height, to_width, to_height = sizes
    grey = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (height, width), np.uint8)
    shrinks = to_width <= width and to_height <= height
    filtering = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    expected = np.asarray(Image.fromarray(grey).resize((to_width, to_height), filtering))
    pixels = np.dstack([grey] * 3 + [np.full_like(grey, 255)])
    got = page.run(
        "async ([pixels, ...rest]) => [...(await load('image.js')).resize(new Uint8ClampedArray(pixels), ...rest)]",
        [pixels.ravel().tolist(), width, height, channels, to_width, to_height],
    )
    # Give or take one: between two passes in another order bytes are rounded otherwise.
    shape = (to_height, to_width, channels)
    assert np.abs(np.array(got).reshape(shape) - expected[..., None].astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("INT64", [-1, -1]), ("INT64", [-1, -1]), True),
        (("INT64", [-1, -1]), ("INT32", [-1, -1]), False),
        (("INT64", [-1, -1]), ("INT64", [-1, 8]), False),
        (("INT64", [1, 8]), ("INT64", [1, 8]), False),
        (("FP32", [-1, -1]), ("FP32", [-1, -1]), False),
    ],
)
def test_which_inputs_are_of_one_size(page: Console, one: Any, other: Any, expected: bool) -> None:
    specs = [{"datatype": datatype, "shape": shape} for datatype, shape in (one, other)]
    assert page.run("async (specs) => (await load('samples.js')).tied(...specs)", specs) is expected


@pytest.mark.parametrize("largest", [0, 0.003, 0.37, 1, 3, 7.2, 99, 1000, 123_456])
def test_axes_begin_at_zero_and_hold_everything(page: Console, largest: float) -> None:
    ticks = page.run("async (largest) => (await load('series.js')).ticks(largest)", largest)
    assert ticks[0] == 0
    assert ticks[-1] >= largest
    assert 2 <= len(ticks) <= 6
    assert len({round(b - a, 9) for a, b in itertools.pairwise(ticks)}) == 1


@pytest.mark.parametrize(
    ("hash_", "expected"),
    [
        ("#/", ("overview", "", "")),
        ("#/model/digits", ("model", "digits", "")),
        ("#/model/a%2Fb%25%3Cx/12", ("model", "a/b%<x", "12")),
        ("#/try", ("try", "", "")),
        ("#/try/x/1", ("try", "x", "1")),
        ("#/model", ("lost", "", "")),
        ("#/model/x/one", ("lost", None, None)),
        ("#/model/%E0%A4%A", ("lost", "", "")),
        ("#/model/a/1/2", ("lost", None, None)),
        ("#/other", ("lost", None, None)),
    ],
)
def test_addresses_of_pages(page: Console, hash_: str, expected: tuple[str, str | None, str | None]) -> None:
    route = page.run("async (hash) => (await load('routes.js')).parse(hash)", hash_)
    assert route["page"] == expected[0]
    if expected[1] is not None:
        assert (route["model"], route["version"]) == expected[1:]


def test_saved_arrays_are_numpys(page: Console, tmp_path: Any) -> None:
    for datatype, shape in (("FP32", (2, 3)), ("INT64", (6,)), ("BOOL", (2, 3)), ("FP16", (1, 6)), ("UINT8", ())):
        count = int(np.prod(shape))
        file = page.run(
            "async ([datatype, shape, count]) => {"
            " const [{ npy }, { fill }] = await Promise.all([load('npy.js'), load('samples.js')]);"
            " return [...npy({ datatype, shape, values: fill('counting', datatype, count) })]; }",
            [datatype, shape, count],
        )
        (tmp_path / "x.npy").write_bytes(bytes(file))
        array = np.load(tmp_path / "x.npy")
        counting = [i % 2 == 1 for i in range(count)] if datatype == "BOOL" else range(count)
        assert array.shape == shape
        assert array.ravel().tolist() == list(counting)


def test_problems_are_found_in_figures_and_states(page: Console) -> None:
    found = page.run(
        """async () => {
            const [{ problems }, { Store }] = await Promise.all([load('problems.js'), load('store.js')]);
            const store = new Store();
            store.take('models', { may_load: false, models: [
                { name: 'm', versions: [
                    { version: '1', state: 'READY', reason: '' },
                    { version: '2', state: 'UNAVAILABLE', reason: 'it is cut short' },
                    { version: '3', state: 'UNAVAILABLE', reason: 'unloaded' } ] } ] }, 0);
            for (let i = 0; i < 40; i += 1) {
                const server = { throttled_share: 0.2, memory_bytes: 95, memory_limit_bytes: 100 };
                const times = { queue_ms: { p50: 50 }, compute_ms: { p50: 2 } };
                const versions = [{ model: 'm', version: '1', failures_per_s: { QUEUE_FULL: 2 }, ...times }];
                store.take('figures', { at_ms: 1000 * i, seconds: 1, server, versions }, i);
            }
            return problems(store).map((each) => each.tone + ' ' + each.title + ' ' + each.text);
        }"""
    )
    assert found == [
        "bad m, version 2, failed to load. Version 1 serves. it is cut short",
        "warn m, version 1, fails requests: queue full. 60 in the last 30 seconds.",
        "warn The container's CPU limit holds the server back 20 % of the time. Latencies are longer than the models "
        "need: raise the limit, or lower the load.",
        "bad 95 % of the memory limit is in use. Beyond the limit the container is killed: raise it, or serve fewer "
        "models or versions.",
        "warn m, version 1: requests wait longer than they run. Half of them wait 50 ms or more for 2 ms of work: it "
        "is asked for more than it can do.",
    ]


def test_the_past_is_bounded_and_says_nothing_it_does_not_know(page: Console) -> None:
    got = page.run(
        """async () => {
            const [{ Store }, { ofVersion }] = await Promise.all([load('store.js'), load('series.js')]);
            const store = new Store();
            const busy = Array.from({ length: 24 }, (_, i) => ({ model: 'busy' + i, version: '1', requests_per_s: 1 }));
            store.take('history', { points: [{ at_ms: 0, versions: busy }, { at_ms: 1000, versions: [] }] }, 0);
            const values = ofVersion(store.points, 'quiet', '1', (entry) => entry.requests_per_s, 0);
            const line = values.map((each) => each.value);
            for (let i = 0; i < 900; i += 1) {
                store.take('figures', { at_ms: 2000 + 1000 * i, versions: [], server: {} }, i);
            }
            store.take('something of a newer server', {}, 0);
            return [line, store.points.length];
        }"""
    )
    assert got == [[None, 0], 301]
