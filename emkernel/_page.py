"""The report on a group as one page of HTML that holds all it needs: text, tables, and pictures to turn."""

from __future__ import annotations

import base64
import json
import platform
import re
from collections.abc import Callable
from functools import cache
from html import escape
from importlib import metadata
from itertools import groupby
from pathlib import Path

import numpy as np

from . import figures
from ._check_maps import triples_of
from ._field import SEED
from ._reports import Check, GroupReport, Section
from ._scene import Scene
from .matrix_group import MatrixGroup
from .rep import V
from .solver.coupling import couplings
from .solver.forms import invariant_forms
from .solver.irreps import irrep_table

__all__ = ["page"]

WRITTEN, PICTURED = 8, 60  # dimension up to which matrices are written as numbers, and as squares
SHOWN = 8  # matrices of a kind
SPELLED = 400  # numbers in generators that are written out as code
PACKAGES = ("emkernel", "torch", "numpy", "scipy", "emlp", "jax")


def page(G: MatrixGroup, report: GroupReport, command: str, quick: bool = False) -> str:
    """The page on a group: its orbit, matrices, irreducibles, couplings, a kernel drawn, its errors, the report.

    Args:
        G: the group.
        report: what :func:`emkernel.check_group` found.
        command: the command that makes this page.
        quick: leave out what needs couplings and kernels.

    Returns:
        HTML without any reference to something outside.
    """
    scenes: list[Scene] = []
    orbit = cache(lambda: figures.orbit(G))
    parts: list[tuple[str, Callable[[], str]]] = [
        ("Orbit", lambda: _orbit(orbit(), scenes)),
        ("Generators", lambda: _generators(G)),
        ("Irreducibles", lambda: _irreducibles(report)),
    ]
    if not quick:
        parts += [("Couplings", lambda: _couplings(G, report)), ("Kernel", lambda: _kernel(orbit(), scenes))]
        parts += [("Errors", lambda: _errors(G, scenes))]
    parts += [("Report", lambda: "".join(map(_section, report.sections))), ("Reproduce", lambda: _again(G, command))]
    word, mark = ("passed", "good") if report.passed else ("FAILED", "bad")
    kind = next((f for s in report.sections for f in s.facts), "")
    written = {name: f'<section id="{name}"><h2>{name}</h2>{_attempt(make)}</section>' for name, make in parts}
    side = [n for n in ("Generators", "Irreducibles", "Couplings") if n in written]
    body = [
        f"<h1>{escape(G.name)}</h1><p>{escape(report.title.removeprefix(f'{G.name}: '))}. {escape(kind)}.</p>",
        f'<p class="verdict {mark}">{escape(report._verdict)}</p>',
        "<nav>" + "".join(f'<a href="#{name}">{name}</a>' for name in written) + "</nav>",
        f'<div class="beside">{written.pop("Orbit")}<div>{"".join(written.pop(n) for n in side)}</div></div>',
        *written.values(),
    ]
    data = json.dumps([_packed(scene) for scene in scenes], separators=(",", ":")).replace("<", "\\u003c")
    filled = {"title": escape(f"{G.name}: {word}"), "body": "\n".join(body), "scenes": data}
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda m: filled[m[1]], template)


def _attempt(make: Callable[[], str]) -> str:
    try:
        return make()
    except Exception as e:  # what cannot be drawn of a group is no reason to withhold the rest
        return f"<p>Not drawn: {escape(type(e).__name__)}: {escape(str(e))}</p>"


# ---- pictures ----------------------------------------------------------------------------------------------------


def _packed(scene: Scene) -> dict:
    """A scene in whole thousandths of what is shown."""

    def whole(a, unit: float) -> list:
        return np.rint(np.asarray(a) * (1000 / unit)).astype(int).tolist()

    layers = []
    for layer in scene.layers:
        points = [whole(p, scene.reach) for p in layer.points]
        entry = {"kind": layer.kind, "points": points, "colour": layer.colour, "strong": layer.strong}
        layers.append(entry if layer.values is None else entry | {"values": whole(layer.values, 1)})
    out: dict = {"axes": scene.axes, "layers": layers}
    if scene.image is not None:
        out["shape"] = scene.image.shape
        out["image"] = base64.b64encode(np.rint((scene.image + 1) * 127).astype(np.uint8).tobytes()).decode()
    if scene.ticks:
        out["ticks"] = [[(*whole([at], scene.reach), text) for at, text in marks] for marks in scene.ticks]
    return out


def _figure(scene: Scene, scenes: list[Scene], legend: bool = False) -> str:
    caption = f"<figcaption><b>{escape(scene.title)}</b> {escape(scene.note)}</figcaption>"
    return f"<figure>{_canvas(scene, scenes)}{_legend(scene) if legend else ''}{caption}</figure>"


def _canvas(scene: Scene, scenes: list[Scene]) -> str:
    scenes.append(scene)
    turns = ' class="turns" tabindex="0"' if len(scene.axes) == 3 else ""
    label = escape(f"{scene.title}. {scene.note}", quote=True)
    return f'<canvas data-scene="{len(scenes) - 1}" role="img" aria-label="{label}"{turns}></canvas>'


def _legend(scene: Scene) -> str:
    keys = []
    for layer in scene.layers:
        ink = {-1: "soft", -2: "text"}.get(layer.colour, f"c{layer.colour % 6}")
        key = f'<i class="{layer.kind}" style="background:var(--{ink})"></i>{escape(layer.label)}'
        keys += [f"<span>{key}</span>"] if layer.label else []
    return f'<div class="legend">{"".join(keys)}</div>'


def _orbit(orbit: figures.Orbit, scenes: list[Scene]) -> str:
    scene = orbit.scene()
    how = "Drag, or use the arrow keys, to turn it. " if len(scene.axes) == 3 else ""
    text = f"{how}Lines show where generators take the points: h a step, A along exp(tA)."
    return f'{_figure(scene, scenes, legend=True)}<p class="soft">{text}</p>'


def _kernel(orbit: figures.Orbit, scenes: list[Scene]) -> str:
    kernel, names = figures.example_kernel(orbit.group), orbit.view.plane_names
    plane = [figures.on_plane(kernel, pair, orbit.view) for pair in figures.PAIRS]
    around = [figures.on_orbit(kernel, pair, orbit) for pair in figures.PAIRS]
    many = len(plane[0].positions) - plane[0].side ** len(names)
    g = orbit.view.change @ orbit.elements.matrix @ orbit.view.inverse
    text = (f"A random implicit kernel k from Scalar + V to Scalar + V (seed {SEED}), block by block. k(g x) = "
            "ρ(g) k(x) ρ(g)⁻¹: where a group element g takes a point, it keeps the colour and takes ")  # fmt: skip
    if np.abs(g @ g.swapaxes(1, 2) - np.eye(orbit.group.d)).max() < 1e-6:
        text += "the arrow or the ellipse along."
    else:
        text += ("the arrow of Scalar → V along; that of V → Scalar, a covector, by the inverse transpose of g; and "
                 "the image of a circle, which g itself does not keep, by g k(x) g⁻¹.")  # fmt: skip
    over = f"Over {' and '.join(names)}, from −{figures.EXTENT} to {figures.EXTENT}"
    if many > 1:
        over += f", a plane that generators preserve; one point and its images, {many} in all, stand out"
    panels = ["".join(_figure(f.scene(), scenes) for f in fields) for fields in (plane, around)]
    return (
        f'<p>{text}</p><p class="soft">{escape(over)}.</p><div class="panels">{panels[0]}</div>'
        f'<p class="soft">Over points of the orbit above.</p><div class="panels">{panels[1]}</div>'
    )


def _errors(G: MatrixGroup, scenes: list[Scene]) -> str:
    scene = figures.errors(figures.example_kernel(G)).scene()
    text = f"<p><b>{escape(scene.title)}</b></p><p>{escape(scene.note)}</p>{_legend(scene)}"
    return f'<div class="beside"><figure>{_canvas(scene, scenes)}</figure><div>{text}</div></div>'


# ---- matrices and tables -------------------------------------------------------------------------------------------


def _generators(G: MatrixGroup) -> str:
    unit = G._units[:, None] / G._units
    orders = [f"h{i + 1}, " + (f"of order {q}" if q else "of infinite order") for i, q in enumerate(G._orders)]
    out = _matrices(orders, G.discrete_generators, unit)
    out += _matrices([f"A{k + 1}, generates exp(tA)" for k in range(len(G.lie_algebra))], G.lie_algebra, unit)
    out = out or f"<p>None: the trivial group in dimension {G.d}.</p>"
    return out + _attempt(lambda: _forms(G))


def _forms(G: MatrixGroup) -> str:
    forms = invariant_forms(V(G))
    names = [f"symmetric {i + 1}" for i in range(len(forms.symmetric))]
    names += [f"antisymmetric {i + 1}" for i in range(len(forms.antisymmetric))]
    if not names:
        return "<h3>Invariant bilinear forms</h3><p>None but 0.</p>"
    both, unit = np.concatenate([forms.symmetric, forms.antisymmetric]), 1 / np.outer(G._units, G._units)
    return f"<h3>Invariant bilinear forms, up to combinations</h3>{_matrices(names, both, unit)}"


def _matrices(names: list[str], matrices: np.ndarray, unit: np.ndarray) -> str:
    """Matrices with their names; what is rounding once they are multiplied by unit, (d, d), is 0."""
    if not names:
        return ""
    shown = [f'<figure class="matrix">{_matrix(m, unit)}<figcaption>{escape(name)}</figcaption></figure>'
             for name, m in zip(names[:SHOWN], matrices)]  # fmt: skip
    left = f'<p class="soft">and {len(names) - SHOWN} more.</p>' if len(names) > SHOWN else ""
    return f'<div class="matrices">{"".join(shown)}</div>{left}'


def _matrix(m: np.ndarray, unit: np.ndarray) -> str:
    """Numbers where there are few; else squares, red for positive and blue for negative ones."""
    d, size = len(m), np.abs(m * unit)
    m = np.where(size > 1e-12 * size.max(), m, 0.0)
    if d <= WRITTEN:
        cells = [[f"{v:.4g}".replace("-", "−") for v in row] for row in m + 0.0]
        rows = ("".join(f'<td{" class=zero" * (c == "0")}>{c}</td>' for c in row) for row in cells)
        return '<div class="scroll"><table>' + "".join(f"<tr>{row}</tr>" for row in rows) + "</table></div>"
    at = np.argwhere(m)
    if d > PICTURED:
        return f"<p>{d} × {d}, {len(at)} entries are not 0</p>"
    paths = ""
    for ink, sign in (("high", 1), ("low", -1)):
        squares = "".join(f"M{j} {i}h1v1h-1z" for i, j in at if m[i, j] * sign > 0)
        paths += f'<path d="{squares}" fill="var(--{ink})"/>' if squares else ""
    return f'<svg viewBox="0 0 {d} {d}" role="img" aria-label="{len(at)} entries that are not 0">{paths}</svg>'


def _irreducibles(report: GroupReport) -> str:
    if not report.multiplicities:
        return "<p>None were found; the report says why.</p>"
    powers = ["V"] + [f"V<sup>{k}</sup>" for k in range(2, 1 + len(report.multiplicities[0][1]))]
    rows, copies = [r for r, _ in report.multiplicities], {r.label: c for r, c in report.multiplicities}
    rows += [r for r in report.irreps or () if r.label not in copies]
    head = "<th>label</th><th class=n>dimension</th><th>type</th>" + "".join(f"<th class=n>in {p}</th>" for p in powers)
    lines = []
    for r in rows:
        counts = copies.get(r.label, (0,) * len(powers))
        lines.append(f"<td>{r.label}</td><td class=n>{r.size}</td><td>{r.type or 'unsplit'}</td>"
                     + "".join(f"<td class=n>{m or '·'}</td>" for m in counts))  # fmt: skip
    text = "All irreducibles of the group" if report.irreps else "The irreducibles in powers of V"
    text = text if report.completely_reducible else "Representations of this group stay whole: the pieces that are met"
    return f"<p>{text}, and how many of each are in V and its powers.</p>{_table(head, lines)}"


def _couplings(G: MatrixGroup, report: GroupReport) -> str:
    table, pieces = irrep_table(G), [r for r, _ in report.multiplicities]
    triples, left = triples_of(G, pieces)
    counts = {(a.label, b.label, c.label): len(couplings(table, a, b, c)) for a, b, c in triples}
    into = [r.label for r in pieces if any(key[2] == r.label for key in counts)]
    place = {r.label: k for k, r in enumerate(pieces)}
    pairs = sorted({key[:2] for key in counts}, key=lambda pair: [place[label] for label in pair])
    if not pairs:
        return "<p>No triples of nontrivial pieces that are small enough.</p>"
    head = "<th>a ⊗ b</th>" + "".join(f"<th class=n>{c}</th>" for c in into)
    lines = [f"<td>{a} ⊗ {b}</td>" + "".join(_count(counts.get((a, b, c))) for c in into) for a, b in pairs]
    text = "How many independent couplings a ⊗ b → c there are, for nontrivial a in V."
    text += f" {left} larger triples were not counted: they are blank." if left else ""
    return f"<p>{text}</p>{_table(head, lines)}"


def _count(n: int | None) -> str:
    return f'<td class=n>{"" if n is None else n or "·"}</td>'


def _table(head: str, lines: list[str], kind: str = "") -> str:
    rows = "".join(f"<tr>{row}</tr>" for row in ([head] if head else []) + lines)
    return f'<div class="scroll"><table class="{kind}">{rows}</table></div>'


# ---- report --------------------------------------------------------------------------------------------------------


def _section(section: Section) -> str:
    out = [f"<h3>{escape(section.title)}</h3>"]
    for fixed, facts in groupby(section.facts, lambda f: f.startswith(" ")):
        lines = [escape(f) for f in facts]
        out += ["<pre>" + "\n".join(lines) + "</pre>"] if fixed else [f"<p>{line}</p>" for line in lines]
    if section.checks:
        out.append(_table("", [_check(c) for c in section.checks], "checks"))
    out += [f'<p class="soft">not done: {escape(r)}</p>' for r in section.refused]
    return "".join(out)


def _check(c: Check) -> str:
    word, mark = ("ok", "good") if c.passed else ("FAIL", "bad")
    bound = f"{c.error:.1e} {'≤' if c.passed else '>'} {c.tol:.0e}" if c.tol else c.bound
    note = f' <span class="soft">{escape(c.note)}</span>' if c.note else ""
    return f'<td class="{mark}">{word}</td><td class="n">{bound}</td><td>{escape(c.name)}{note}</td>'


def _again(G: MatrixGroup, command: str) -> str:
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    versions.append(f"Python {platform.python_version()}")
    return (f"<pre>{escape(command)}</pre><pre>{escape(_code(G))}</pre>"
            f'<p class="soft">{escape(", ".join(versions))}. Generators: SHA-256 {G.digest}.</p>')  # fmt: skip


def _code(G: MatrixGroup) -> str:
    """Python that makes the group and the pictures."""
    lines = ["import emkernel as ek", ""]
    if G.discrete_generators.size + G.lie_algebra.size <= SPELLED:
        lines += ["G = ek.MatrixGroup(", f"    {G.name!r},"]
        for name in ("discrete_generators", "lie_algebra"):
            if len(getattr(G, name)):
                lines += [f"    {name}=[", *(f"        {_spelled(m)}," for m in getattr(G, name)), "    ],"]
        trivial = not (len(G.discrete_generators) or len(G.lie_algebra))
        lines += [f"    d={G.d},"] * trivial + ["    trust_digits=True,"] * G._trusted + [")"]
    else:
        lines += ["# G = ..., whose generators are too large to be written here"]
    lines += ["print(ek.check_group(G))", "ek.plots.orbit(G)", "kernel = ek.figures.example_kernel(G)"]
    lines += ["ek.plots.on_plane(kernel), ek.plots.on_orbit(kernel), ek.plots.errors(kernel)"]
    return "\n".join(lines)


def _spelled(m: np.ndarray) -> str:
    """A matrix to the last digit."""
    return str([[int(v) if v == int(v) else float(v) for v in row] for row in m.tolist()])
