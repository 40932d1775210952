"""The page of a training: it is whole, it loads nothing, and names from the data are only text."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from xpmlp.models import FullyConnectedNet
from xpmlp.report import Findings, Scored, comparison_page, report_page
from xpmlp.report.pictures import as_images, mosaic, png_uri

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</table></main></html>",
    "&lt;b&gt; & 'quotes'",
    "\N{PARTY POPPER} \N{FAMILY}\N{ZERO WIDTH JOINER}\N{WOMAN}",
    "right\N{RIGHT-TO-LEFT OVERRIDE}left\x1b[31m\x00",
    "x" * 500,
    "",
)
HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 1.8, "val_accuracy": 0.5, "lr": 0.1},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 1.2, "val_accuracy": 0.75, "lr": 0.2},
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser makes of a page: tags in order, attributes, text by place; all are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def scored(classes, rows=60, shape=(5, 4), seed=0):
    """Random answers, half of which are right."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(len(classes)), rows)
    y = np.where(rng.random(rows) < 0.5, p.argmax(axis=1), rng.integers(0, len(classes), rows))
    return Scored("rows", rng.random((rows, *shape)), y, p, tuple(classes))


def page_of(found, **rest):
    return Page(report_page(Findings("a run", HISTORY, 2, found, {"accuracy": 0.5}, **rest)))


def test_names_from_the_data_are_text_and_nothing_else():
    names = [f"class {n}" for n in range(len(HOSTILE))]
    tame, tame_rows = page_of(scored(names)), scored(names, shape=(3,))
    wild = scored(HOSTILE)
    wild.name = HOSTILE[1]
    wild_rows = scored(HOSTILE, shape=(3,))
    wild_rows.describe = lambda row: dict.fromkeys(HOSTILE, HOSTILE[0])
    tame_rows.describe = lambda row: dict.fromkeys(names, "value")
    for quiet, loud in ((tame, page_of(wild)), (page_of(tame_rows), page_of(wild_rows))):
        assert quiet.tags == loud.tags
        assert {name for name, _ in loud.attributes} - {name for name, _ in quiet.attributes} <= {
            "title"  # the whole of a name that is shown in part
        }
        assert HOSTILE[0] in loud.text and HOSTILE[3] in loud.text
    findings = Findings(
        HOSTILE[0], HISTORY, settings=[(HOSTILE[0], HOSTILE[1])], warnings=[*HOSTILE]
    )
    hostile = Page(report_page(findings))
    assert "script" not in hostile.tags and "img" not in hostile.tags
    assert all(line[:50] in hostile.text for line in HOSTILE[:4])


def test_signs_that_are_no_text_are_gone():
    text = report_page(Findings("x", warnings=[HOSTILE[5], "\ud800 lone"]))
    assert not {"\x1b", "\x00", "\N{RIGHT-TO-LEFT OVERRIDE}", "\ud800"} & set(text)


@pytest.mark.parametrize("several", [False, True])
def test_it_loads_nothing_and_runs_nothing(several):
    network = FullyConnectedNet([20, 6, 3], seed=0)
    run = Findings("a run", HISTORY, 2, scored("abc"), {"loss": 1.0}, network)
    text = comparison_page("runs", [run, run]) if several else report_page(run)
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#part-"))
    assert "url(" not in text and "@import" not in text and "http://" not in text
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    ids = [value for name, value in page.attributes if name == "id"]
    links = [value[1:] for name, value in page.attributes if name == "href"]
    assert ids == links and len(set(ids)) == len(ids)


def test_figures_are_those_of_the_answers():
    answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = Scored("rows", np.zeros((4, 2)), np.array([0, 1, 1, 0]), answers, ("cat", "dog"))
    page = page_of(found)
    assert "1 of 4 rows are wrong" in page.text
    assert re.search(r"catdog2dogcat20\.0 %|2dogcat80\.0 %", page.text)  # row 2: dog, said cat
    assert page.text.count("dogcat1") == 1  # mixed up once
    assert "class" in page.text and "100.0 %" in page.text and "66.7 %" in page.text


def test_the_worst_mistakes_come_first():
    p = np.array([[0.6, 0.4], [0.99, 0.01], [0.7, 0.3], [0.5, 0.5]])
    found = Scored("rows", np.zeros((4, 2)), np.array([1, 1, 1, 0]), p, ("cat", "dog"))
    places = [page_of(found).text.index(f"{share} %") for share in ("99.0", "70.0", "60.0")]
    assert places == sorted(places)


def test_numbers_and_the_rows_that_are_furthest_off():
    y = np.arange(2000.0)
    answers = y[:, None] + 0.5
    answers[1234] += 100
    found = Scored("rows", y[:, None], y, answers, None)
    page = page_of(found)
    assert page.tags.count("circle") == 800 and "800 of 2,000 rows are drawn" in page.text
    worst = page.text.index("furthest off")
    assert re.search(r"12351234\s*1334\.5\s*\+100", page.text[worst:])


@pytest.mark.parametrize(
    "found",
    [
        scored(["only"]),
        scored([str(n) for n in range(60)]),
        scored("ab", rows=1),
        Scored("x", np.zeros((3, 2)), np.array([0, 1, 0]), np.full((3, 2), np.nan), ("a", "b")),
        Scored("x", np.zeros((3, 2)), np.ones(3), np.ones((3, 1)), None),
        Scored("x", np.zeros((3, 2)), np.ones(3), np.full((3, 1), np.inf), None),
        Scored("x", np.zeros((3, 2)), np.arange(15.0).reshape(3, 5), np.ones((3, 5)), None),
        None,
    ],
    ids=["1 class", "60 classes", "1 row", "nan", "constant", "inf", "5 targets", "nothing"],
)
@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1, "train_loss": 1.0}],
        [{"epoch": "1", "train_loss": ""}, {"epoch": "2", "train_loss": "nan"}],
        [{"epoch": n, "train_loss": 10.0**-n, "val_f1": 0.1} for n in range(1, 1200)],
        [{"epoch": 1, "train_loss": 0.0}, {"epoch": 2, "train_loss": -1e300}],
    ],
    ids=["none", "1 epoch", "no numbers", "1199 epochs", "huge"],
)
def test_whatever_there_is_makes_a_page(found, history):
    text = report_page(Findings("a run", history, 1, found))
    page = Page(text)
    assert not re.search(r'[ML]?(nan|inf)[ "L]', "".join(v for n, v in page.attributes if n == "d"))
    assert len(text) < 300_000


def test_pictures_hold_the_pixels_that_were_given():
    image_library = pytest.importorskip("matplotlib.image")
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (4, 3, 3)):
        pixels = rng.random(shape)
        content = png_uri(pixels).removeprefix("data:image/png;base64,")
        read = image_library.imread(io.BytesIO(base64.b64decode(content)), format="png")
        read = read if read.ndim == len(shape) else read[..., 0]
        np.testing.assert_allclose(read, pixels, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("shape", [(3, 32, 32), (28, 28)])
def test_pictures_of_the_first_layer_are_whole(shape):
    pytest.importorskip("matplotlib.image")
    network = FullyConnectedNet([int(np.prod(shape)), 64, 3], seed=0)
    text = report_page(Findings("a run", HISTORY, 2, scored("abc", shape=shape), {}, network))
    (uri,) = re.findall(r'src="data:image/png;base64,([^"]+)" alt="Weights', text)
    content = base64.b64decode(uri)
    assert content.endswith(b"IEND\xaeB`\x82") and ("own scale" in text) == (len(shape) == 3)


def test_what_is_an_image():
    assert as_images(np.zeros((2, 8, 8))).shape == (2, 8, 8)
    assert as_images(np.zeros((2, 3, 8, 9))).shape == (2, 8, 9, 3)
    assert as_images(np.zeros((2, 8, 9, 1))).shape == (2, 8, 9)
    assert as_images(np.zeros((2, 64))) is None and as_images(np.zeros((2, 4, 5, 6))) is None
    tiles = mosaic(np.zeros((3, 2, 2)))
    assert tiles.shape == (5, 5) and tiles[2].all() and not tiles[:2, :2].any()


def test_several_runs_side_by_side():
    runs = [
        Findings(
            "first", HISTORY, figures={"accuracy": 0.5}, settings=[("lr", "1"), ("seed", "0")]
        ),
        Findings("second", [], figures={"r2": 0.25}, settings=[("lr", "2"), ("seed", "0")]),
    ]
    page = Page(comparison_page("runs", runs))
    assert "50.00 %" in page.text and "0.25" in page.text
    differing = page.text[page.text.rindex("Settings that differ") :]
    assert "lr" in differing and "seed" not in differing
