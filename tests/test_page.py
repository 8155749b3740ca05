"""The page that shows a group: self-contained, well-formed, true to the report; and the command that writes it."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import emkernel as ek
from emkernel import MatrixGroup
from emkernel._page import page
from emkernel.cli import main

VOID = {"meta", "link", "br", "img", "input", "path"}  # path: closed as <path/>
LARGEST = 2_000_000


class Reader(HTMLParser):
    """Elements, attributes and text of a page; raises where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def scenes_of(text):
    return json.loads(re.search(r'<script type="application/json" id="scenes">(.*?)</script>', text, re.DOTALL)[1])


MAKE = {
    "order 3": lambda: MatrixGroup("C3 <b>&amp;{{scenes}}</script>", [[[0, -1], [1, -1]]]),
    "shear": lambda: MatrixGroup("shear", lie_algebra=[[[0, 1], [0, 0]]]),
    "trivial": lambda: MatrixGroup("one", d=3),
    "complex": lambda: MatrixGroup("U(1)", lie_algebra=[[[1j]]]),
    "line": lambda: MatrixGroup("sign", [[[-1]]]),
    "permutations of nine": lambda: MatrixGroup.from_permutations("C9", [[1, 2, 3, 4, 5, 6, 7, 8, 0]]),
}
_kept: dict = {}


@pytest.fixture(params=MAKE)
def written(request):
    """(group, report, page)."""
    return made(request.param)


def made(name):
    if name not in _kept:
        G = MAKE[name]()
        report = ek.check_group(G, degree=1, quick=name != "order 3")
        _kept[name] = G, report, page(G, report, "emkernel check 'my group.py:G'")
    return _kept[name]


def test_the_page_is_well_formed_and_small(written):
    text = written[2]
    reader = Reader(text)
    names = [attrs["id"] for _, attrs in reader.found if "id" in attrs]
    assert len(set(names)) == len(names) and len(text.encode()) < LARGEST
    links = [attrs["href"] for tag, attrs in reader.found if tag == "a"]
    assert links and all(link.startswith("#") and link[1:] in names for link in links)


def test_nothing_is_loaded_from_outside(written):
    outside(written[2])


def outside(text):
    """Raise where a page loads something, in an element, a style or a script."""
    for tag, attrs in Reader(text).found:
        for name in ("src", "srcset", "href", "data", "action", "poster", "xlink:href"):
            value = attrs.get(name, "#")
            assert value.startswith(("#", "data:")), f"<{tag} {name}={value}>"
        assert tag not in ("iframe", "object", "embed", "base")
        assert "url(" not in attrs.get("style", "")
    loaders = ("url(", "@import", "fetch(", "XMLHttpRequest", "import(", "WebSocket", "http:", "https:", "new Image(")
    for loader in loaders:
        assert loader not in text, loader


@pytest.mark.parametrize(
    "piece",
    ['<img src="https://x.org/a.png">', '<script src="a.js"></script>', "<style>@import 'a';</style>", "<p>",
     '<a href="//x.org">x</a>', "<script>fetch('a')</script>", '<p style="background:url(a)">x</p>'],
)  # fmt: skip
def test_a_page_that_loads_something_is_seen(piece):
    with pytest.raises(AssertionError):
        outside(made("shear")[2].replace("</main>", piece + "</main>"))


def test_the_page_says_what_the_report_says(written):
    G, report, text = written
    words = Reader(text).text
    assert " ".join(G.name.split()) in words and report._verdict in words
    for section in report.sections:
        for line in (*section.refused, *section.facts, *(c.name for c in section.checks)):
            assert " ".join(line.split()) in words, line
    for irrep, _ in report.multiplicities:
        assert f" {irrep.label} {irrep.size} {irrep.type or 'unsplit'} " in words
    assert "emkernel check 'my group.py:G'" in words and G.digest in words and "torch" in words


def test_every_canvas_has_its_scene(written):
    _, _, text = written
    scenes = scenes_of(text)
    canvases = [attrs for tag, attrs in Reader(text).found if tag == "canvas"]
    assert [int(c["data-scene"]) for c in canvases] == list(range(len(scenes))) and len(scenes) >= 9
    for canvas, scene in zip(canvases, scenes):
        assert ("turns" in canvas.get("class", "")) == (len(scene["axes"]) == 3)
        for layer in scene["layers"]:
            assert np.abs(np.concatenate([np.ravel(p) for p in layer["points"]])).max() < 2500


def test_the_points_of_the_page_are_those_of_the_orbit():
    G, _, text = made("order 3")
    orbit = ek.figures.orbit(G)
    (dots,) = (x for x in scenes_of(text)[0]["layers"] if x["kind"] == "dots" and not x["strong"])
    assert np.abs(np.array(dots["points"]) / 1000 - orbit.points / orbit.scene().reach).max() < 1e-3
    turned = np.array(dots["points"]) @ np.array([[-0.5, -(0.75**0.5)], [0.75**0.5, -0.5]])
    apart = np.abs(turned[:, None] - dots["points"]).max(2).min(1)
    assert len(apart) == 3 and apart.max() <= 2  # thousandths: the lattice is drawn as it is


def test_couplings_are_counted():
    report = ek.check_group(ek.groups.SO(3), quick=True)
    words = Reader(page(ek.groups.SO(3), report, "")).text
    assert "a ⊗ b 1a 3a 5a 3a ⊗ 3a 1 1 1 3a ⊗ 5a · 1 1" in words


def test_what_cannot_be_drawn_is_said():
    text = made("trivial")[2]
    assert "Not drawn: GroupError" in text and "no element but the identity" in text


def test_the_code_of_the_page_makes_the_group():
    for name in ("order 3", "complex", "trivial"):
        G, _, text = made(name)
        code = next(c for c in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL) if "import emkernel" in c)
        space: dict = {}
        reader = Reader(f"<p>{code.split('print(')[0]}</p>")
        exec("".join(reader.words), space)
        assert space["G"] == G and space["G"].name == G.name


def test_rounding_is_shown_as_zero():
    turn, shift = np.zeros((2, 3, 3))
    turn[0, 1], turn[1, 0], shift[0, 2] = -1, 1, 1
    G = MatrixGroup("SE(2)", lie_algebra=[turn, shift])
    words = Reader(page(G, ek.check_group(G, quick=True), "", quick=True)).text
    assert "0 0 0 0 0 0 0 0 1 symmetric 1" in words


def test_units_do_not_hide_numbers():
    c = 3e8
    G = MatrixGroup("boost", lie_algebra=[[[0, 1 / c], [c, 0]]])
    words = Reader(page(G, ek.check_group(G, quick=True), "", quick=True)).text
    assert "0 3.333e−09 3e+08 0" in words


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def group_file(tmp_path):
    path = tmp_path / "my_group.py"
    path.write_text("import emkernel as ek\nG = ek.MatrixGroup('flip', [[[0, 1], [1, 0]]])\n", encoding="utf-8")
    return path


def untimed(report):
    return re.sub(r"\d+\.\d+ s\b", "", report)


def test_the_command_writes_a_page_and_prints_as_before(group_file, capsys):
    words = ["check", f"{group_file}:G", "--degree", "1"]
    assert main(words) == 0
    before = capsys.readouterr()
    out = group_file.with_name("report.html")
    assert main([*words, "--html", str(out)]) == 0
    after = capsys.readouterr()
    assert untimed(after.out) == untimed(before.out) and after.err == ""
    text = out.read_text(encoding="utf-8")
    assert "flip" in text and f"{group_file}:G --degree 1 --html {out}" in Reader(text).text
    assert sorted(p.name for p in out.parent.iterdir()) == ["my_group.py", "report.html"]


def test_a_failing_check_is_shown_too(group_file):
    out = group_file.with_name("report.html")
    assert main(["check", f"{group_file}:G", "--order", "3", "--quick", "--html", str(out)]) == 1
    reader = Reader(out.read_text(encoding="utf-8"))
    assert "FAILED 1 of" in reader.text and "FAIL off by 1 expected order 3" in reader.text
    names = [attrs["id"] for tag, attrs in reader.found if tag == "section"]
    assert "Orbit" in names and "Kernel" not in names and "Couplings" not in names


@pytest.mark.parametrize(("name", "words"), [("nowhere/report.html", "is not a folder"), (".", "is a folder")])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(group_file, capsys, name, words):
    assert main(["check", f"{group_file}:G", "--html", str(group_file.parent / name)]) == 2
    done = capsys.readouterr()
    assert done.out == "" and words in done.err and done.err.count("\n") == 1


def test_nothing_half_written_stays(group_file, monkeypatch):
    out = group_file.with_name("report.html")
    out.write_text("old", encoding="utf-8")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["check", f"{group_file}:G", "--quick", "--html", str(out)]) == 2
    assert sorted(p.name for p in out.parent.iterdir()) == ["my_group.py", "report.html"]
    assert out.read_text(encoding="utf-8") == "old"
