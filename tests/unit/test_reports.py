"""Reports as pages: whatever a text or a number is, the page is well-formed, whole, and says what it left out."""

from __future__ import annotations

import json
import math
import os
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument
from vecdb.reports import Code, Plot, Prose, Report, Section, Table, page, plots
from vecdb.reports.cells import clean, column, label, width_of, written
from vecdb.reports.scales import scale, usable

HOSTILE = [
    "<script>alert(1)</script>", "</title></style></svg><script>x</script>", "\"><img src=x onerror=y>", "a\x00b",
    "half \ud800 pair", "x" * 10_000, "\u202egnp.exe", "]]>", "&lt;", "'\"`", "\n\n\r\t", "", "日本語" * 99, "e\u0301" * 500,
    "{0}", "%s", "https://example.org/x.js", "\ufffe\uffff", "--><!--",
]  # fmt: skip
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Shape(HTMLParser):
    """Whether each element is closed where it should be; which elements, addresses and ids there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("src", "href", "action", "data", "srcset", "style"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class Made(Report):
    def __init__(self, words: str) -> None:
        self.title = self.subtitle = self.words = words

    def sections(self) -> list[Section]:
        w = self.words
        xy = np.random.default_rng(0).normal(size=(5, 2))
        return [
            Section(w, [Prose(w), Prose(w, strong=True), Code(w), Table((w, w), [(w, 1), (None, w)], caption=w)]),
            Section("plots", [
                plots.intervals([(w, 0, 0.5, 1), (w + "!", 0, 0.4, 1)], title=w, axis=w, mark=(w, 0.45)),
                plots.histogram({w: [1, 2, 3], "other": [2]}, title=w, axis=w),
                plots.curve({w: [(0, 1, 0, 2), (1, 2, 1, 3)], "o": [(0, 1, None, None)]}, title=w, x_axis=w, y_axis=w),
                plots.points(xy, [w, w, "a", "b", None], [w] * 5, title=w),
            ]),
            Section(w, []),
            Section("empty", [Table((), []), Table(("a",), [])]),
        ]  # fmt: skip


def checked(html: str) -> Shape:
    """A page that is whole, safe and can be read."""
    html.encode("utf-8")
    shape = Shape(html)
    assert len(set(shape.ids)) == len(shape.ids)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & set(shape.tags)
    assert all(address.startswith("#s") for address in shape.addresses), shape.addresses
    for svg in html.split("<svg")[1:]:
        root = ElementTree.fromstring("<svg" + svg.partition("</svg>")[0] + "</svg>")
        assert root.get("role") == "img" and root[0].tag.endswith("title") and root[1].tag.endswith("desc")
        assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
    return shape


TAGS = checked(Made("plain").to_html()).tags


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_are_words(words: str) -> None:
    html = Made(words).to_html()
    shape = checked(html)
    for tag in (set(TAGS) | set(shape.tags)) - {"p", "line", "text", "caption"}:  # by how much there is to say, and room
        assert shape.tags.count(tag) == TAGS.count(tag), tag
    assert "\x00" not in html and "\u202e" not in html and len(html) < 200_000
    json.loads(Made(words).to_json())


@settings(max_examples=60, deadline=None)
@given(words=st.text(max_size=60))
def test_any_words_are_words(words: str) -> None:
    checked(Made(words).to_html())
    assert json.loads(Made(words).to_json())["title"] == words


def test_the_rule_sees_markup() -> None:
    """The control: what gets through unescaped is seen."""
    for words in ("<script>x</script>", "<p>", '<a href="https://x">y</a>', '<p onclick="x">y</p>'):
        with pytest.raises(AssertionError):
            checked(page("t", []).replace("<main", words + "<main"))


def test_a_page_loads_nothing_and_says_so() -> None:
    html = Made("a").to_html()
    assert "default-src 'none'" in html and "prefers-color-scheme:dark" in html and "@media print" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in html and "@import" not in html


def contrast(one: str, other: str) -> float:
    """WCAG 2: the ratio of two colours' relative luminances."""
    shades = []
    for colour in (one, other):
        digits = colour.lstrip("#") if len(colour) == 7 else "".join(c * 2 for c in colour.lstrip("#"))
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        shades.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(shades) / min(shades)


@pytest.mark.parametrize("theme", ["_LIGHT", "_DARK", "_PAPER"])
def test_everything_can_be_told_from_the_ground(theme: str) -> None:
    from vecdb.reports import style

    colours = dict(each.split(":") for each in getattr(style, theme).split(";"))
    for name in ("--ink", "--soft", "--key"):
        assert contrast(colours[name], colours["--ground"]) >= 4.5, name
        assert contrast(colours[name], colours["--band"]) >= 4.5, name
    for n in range(9):
        assert contrast(colours[f"--c{n}"], colours["--ground"]) >= 3, n


NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(-(10**20), 10**20), st.floats(-1, 1),
    st.sampled_from([0.0, -0.0, 1.0, 1e-320, 5e-324, 1e150, -1e150, 1e151, 10**400, True, "x", 1 + 1e-16]),
)  # fmt: skip


def numbers_in(plot: Plot) -> list[float]:
    """Every coordinate of a picture."""
    root = ElementTree.fromstring(plot.svg())
    found: list[float] = []
    for element in root.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r"):
            if name in element.attrib:
                found.append(float(element.attrib[name]))
        for word in element.get("d", "").translate(str.maketrans("MLHVZhv", "       ")).split():
            found.append(float(word))
    return found


def sound(plot: Plot) -> None:
    """All that is drawn is drawn inside the picture."""
    found = numbers_in(plot)
    assert all(math.isfinite(each) and -30 <= each <= max(plot.width, plot.height) + 30 for each in found)
    json.dumps(Made.to_dict(_holding(plot)), default=str)


def _holding(plot: Plot) -> Any:
    class Holding(Report):
        def sections(self) -> list[Section]:
            return [Section("s", [plot])]

    return Holding()


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=8))
def test_any_numbers_can_be_drawn(rows: list[tuple[Any, Any, Any]]) -> None:
    sound(plots.intervals([("r", *row) for row in rows], title="t", axis="a", mark=("m", 0.5)))
    sound(plots.histogram({"a": [row[0] for row in rows], "b": [row[1] for row in rows]}, title="t", axis="a"))
    lines = [(row[0], row[1], row[2], row[0]) for row in rows]
    sound(plots.curve({"a": lines, "b": lines[:1]}, title="t", x_axis="x", y_axis="y"))
    floats = [[_float(row[0]), _float(row[1])] for row in rows]
    sound(plots.points(floats, [row[2] for row in rows], title="t"))


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


@settings(max_examples=300, deadline=None)
@given(values=st.lists(NUMBERS.filter(usable).map(float), max_size=6), tight=st.booleans())
def test_an_axis_holds_its_values_and_its_ticks_differ(values: list[float], tight: bool) -> None:
    axis = scale(values, 10, 500, tight=tight)
    assert all(10 - 0.1 <= axis.at(value) <= 500 + 0.1 for value in values)
    ticks = axis.ticks
    assert 2 <= len(ticks) <= 10 and len({word for _, word in ticks}) == len(ticks)
    assert all(9.9 <= at <= 500.1 for at, _ in ticks)


def test_what_is_left_out_is_counted() -> None:
    nan = math.nan
    drawn = plots.intervals([("a", 0, nan, 1), ("b", None, 0.5, 1), *[("c", 0, 0, 0)] * 200], title="t", axis="a")
    assert drawn.note == "102 further rows are not drawn; 1 row has no value; 1 row has no interval"
    assert drawn.svg().count("<circle") == 99 and len(drawn.data) == 202
    drawn = plots.histogram({str(i): [i, nan, None] for i in range(11)}, title="t", axis="a")
    assert drawn.note == "3 further series are not drawn; 16 values that are no finite numbers are left out"
    drawn = plots.curve({"a": [(1, nan, 0, 1), (2, 1, 0, 1)]}, title="t", x_axis="x", y_axis="y")
    assert drawn.note == "1 value that is no finite number is left out"
    xy = np.random.default_rng(1).normal(size=(5_000, 2))
    xy[:7] = nan
    drawn = plots.points(xy, np.arange(5_000) % 20, title="t")
    assert drawn.note == "2,000 of 4,993 points are drawn; 7 points that are no finite numbers are left out"
    assert drawn.svg().count('class="dot') == 2_000 + 9 and "12 other groups" in drawn.description
    assert drawn.svg() == plots.points(xy, np.arange(5_000) % 20, title="t").svg()


def test_what_is_drawn_is_what_programs_read() -> None:
    values = np.random.default_rng(2).normal(size=100_000)
    data = plots.histogram({"a": values, "b": values[:10]}, title="t", axis="x", bins=20).data
    assert data["counts"]["a"].sum() == 100_000 and len(data["edges"]) == 21
    assert (np.histogram(values, data["edges"])[0] == data["counts"]["a"]).all()
    data = plots.points(np.c_[values, values], np.arange(100_000) % 3, list(range(100_000)), title="t").data
    assert len(data["xy"]) == len(data["groups"]) == len(data["labels"]) == 2_000
    assert all(data["xy"][n][0] == values[i] for n, i in enumerate(data["labels"]))


def test_nothing_says_so() -> None:
    for drawn in (
        plots.intervals([], title="t", axis="a"), plots.histogram({}, title="t", axis="a"),
        plots.histogram({"a": []}, title="t", axis="a"), plots.curve({}, title="t", x_axis="x", y_axis="y"),
        plots.curve({"a": []}, title="t", x_axis="x", y_axis="y"), plots.points(np.empty((0, 2)), title="t"),
        plots.points([], [], title="t"), plots.points([[math.nan, 1]], title="t"),
    ):  # fmt: skip
        assert "no values" in drawn.svg()
        sound(drawn)


def test_an_interval_is_where_its_numbers_are() -> None:
    """The picture against the axis that it draws: pixels from two ticks give the numbers back."""
    drawn = plots.intervals([("a", 0.25, 0.5, 0.625)], title="t", axis="a")
    root = ElementTree.fromstring(drawn.svg())
    ticks = {float(e.text or ""): float(e.attrib["x"]) for e in root.iter() if e.get("class") == "tick"}
    (v0, x0), (v1, x1) = min(ticks.items()), max(ticks.items())
    circle = next(e for e in root.iter() if e.get("class") == "mean")
    whisker = next(e for e in root.iter() if e.get("class") == "whisker").attrib["d"]
    ends = [float(whisker[1:].split()[0]), float(whisker.partition("H")[2].partition("M")[0])]
    for x, value in zip([ends[0], float(circle.attrib["cx"]), ends[1]], (0.25, 0.5, 0.625), strict=True):
        assert abs(v0 + (x - x0) / (x1 - x0) * (v1 - v0) - value) < 0.001


def test_a_map_has_one_unit() -> None:
    drawn = plots.points([[0, 0], [10, 0], [0, 1]], title="t")
    root = ElementTree.fromstring(drawn.svg())
    (ax, ay), (bx, by), (cx, cy) = [
        (float(e.attrib["cx"]), float(e.attrib["cy"])) for e in root.iter() if e.get("class") == "dot s1"
    ]
    assert ay == by and ax == cx and abs((bx - ax) - 10 * (ay - cy)) < 2


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: plots.points([[1, 2, 3]], title="t"), r"xy.*\(1, 3\)"),
        (lambda: plots.points([1, 2], title="t"), r"xy.*\(n, 2\)"),
        (lambda: plots.points([[1, 2]], ["a", "b"], title="t"), "groups: 2 for 1"),
        (lambda: plots.points([[1, 2]], labels=[], title="t"), "labels: 0 for 1"),
    ],
)
def test_misuse(call: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        call()


def test_values_as_text() -> None:
    assert column([0.5, 1, None, math.nan, -0.25]) == (["0.500", "1", "–", "–", "−0.250"], True)
    assert column([np.float32(0.25), np.int64(1234)]) == (["0.250", "1,234"], True)
    assert column(["1.2 %", "≥ 3 MB", "0.50 ± 0.01", "0.5 [0.4, 0.6]", ""])[1]
    assert not column(["1999-01-01"])[1] and not column([None])[1] and not column([True])[1]
    assert column([0.00012, 3e-9])[0] == ["0.000120", "0.000000"]
    assert written(-0.0001, 3) == "0.000" and written(10**50) == "∞" and written(1e300) == "1e+300"

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("x")

    assert written(Bad()) == "<Bad: RuntimeError>"
    assert label("日" * 50, 10) == "日日日日…" and width_of(label("x" * 10**6)) <= 34
    assert clean("x" * 10**6, 5) == "xxxx…"


def test_tables_are_cut_and_say_so() -> None:
    html = page("t", [Section("s", [Table(("a",), [(i,) for i in range(1_500)])])])
    assert html.count("<tr>") == 1_001 and "The first 1,000 of 1,500 rows" in html
    html = page("t", [Section("s", [Table([str(i) for i in range(99)], [range(99)])])])
    assert html.count("<td") == 60 and "The first 60 of 99 columns" in html
    html = page("t", [Section("s", [Table(("a", "b"), [(1,), (1, 2, 3)])])])
    assert html.count("<td") == 4


def test_json_is_strict_and_has_the_numbers(tmp_path: Path) -> None:
    class Odd(Report):
        title = "odd"

        def to_dict(self) -> dict[str, Any]:
            return {
                "nan": math.nan, "np": np.float32(0.5), "array": np.arange(3), 1: {2, 1}, None: (True,), (1, 2): b"x",
                "deep": deep, "half": "\ud800", "inf": np.array([np.inf, 1.0]),
            }  # fmt: skip

    deep: Any = []
    for _ in range(100):
        deep = [deep]
    found = json.loads(Odd().to_json(tmp_path / "odd.json"))
    assert found["nan"] is None and found["np"] == 0.5 and found["array"] == [0, 1, 2] and found["1"] == [1, 2]
    assert found["null"] == [True] and found["(1, 2)"] == "b'x'" and found["inf"] == [None, 1.0]
    assert json.loads((tmp_path / "odd.json").read_text()) == found
    said = json.loads(Made("w").to_json())
    assert said["sections"][1]["body"][0]["data"][0] == {"label": "w", "low": 0, "mean": 0.5, "high": 1}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    html = Made("a").to_html(path)
    assert path.read_text(encoding="utf-8") == html and os.listdir(tmp_path) == ["r.html"]
    Made("half \ud800").to_html(str(path))
    assert "half \ufffd" in path.read_text(encoding="utf-8")
    bad: list[Any] = [tmp_path / "no" / "r.html", tmp_path, "", "a\0b", 5, tmp_path / ("x" * 300)]
    for each in bad:
        with pytest.raises(InvalidArgument):
            Made("a").to_html(each)
        with pytest.raises(InvalidArgument):
            Made("a").to_json(each)
    assert os.listdir(tmp_path) == ["r.html"]


def test_notebooks_show_it() -> None:
    html = Made("a")._repr_html_()
    Shape(html)
    assert html.startswith("<style>") and "<body" not in html and "<main" not in html
