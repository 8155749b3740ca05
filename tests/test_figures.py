"""What is drawn carries the symmetry, for groups of every kind; what breaks it is seen."""

import itertools
import sys
from math import cos, pi, sin

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

import emkernel as ek
from emkernel import MatrixGroup, RepError, Scalar, V, figures
from emkernel._field import pairs_of
from emkernel._view import display, plane_of
from emkernel.errors import GroupError
from emkernel.figures import EXTENT, PAIRS


def turn(q):
    return [[cos(2 * pi / q), -sin(2 * pi / q), 0], [sin(2 * pi / q), cos(2 * pi / q), 0], [0, 0, 1]]


def boosts(c):
    """Of (t, x, y), and rotations."""
    boost = [np.zeros((3, 3)) for _ in range(2)]
    for k in (0, 1):
        boost[k][0, k + 1], boost[k][k + 1, 0] = 1 / c, c
    return [*boost, np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]])]


MAKE = {
    "7m in space": lambda: MatrixGroup("7m", [turn(7), np.diag([1, -1, 1])]),
    "hexagonal lattice": lambda: MatrixGroup("hex", [[[1, -1], [1, 0]], [[0, 1], [1, 0]]]),
    "quaternions": lambda: MatrixGroup("Q8", [np.diag([1j, -1j]), [[0, 1], [-1, 0]]]),
    "permutations": lambda: MatrixGroup.from_permutations("S4", [[1, 2, 3, 0], [1, 0, 2, 3]]),
    "reflection of a line": lambda: MatrixGroup("sign", [[[-1]]]),
    "axis": lambda: MatrixGroup("axis", [np.diag([1, 1, -1])], [[[0, -1, 0], [1, 0, 0], [0, 0, 0]]]),
    "Lorentz, c = 3e8": lambda: MatrixGroup("Lorentz", [np.diag([-1, 1, 1])], boosts(3e8)),
    "shear": lambda: MatrixGroup("shear", lie_algebra=[[[0, 1], [0, 0]]]),
    "stretches": lambda: MatrixGroup("scale", lie_algebra=[[[1.0]]]),
}  # fmt: skip
FINITE = ["7m in space", "hexagonal lattice", "quaternions", "permutations", "reflection of a line"]
_kept: dict = {}


@pytest.fixture(params=MAKE)
def drawn(request):
    """(orbit, kernel) of a group."""
    return made(request.param)


def made(name):
    if name not in _kept:
        G = MAKE[name]()
        _kept[name] = figures.orbit(G), figures.example_kernel(G, 2)
    return _kept[name]


def broken(kernel):
    """A copy of a kernel that adds a constant matrix."""

    class Broken(type(kernel)):
        def forward(self, *args):
            k = super().forward(*args)
            return k + 0.1 * torch.arange(k[0].numel()).reshape(k.shape[1:]).to(k).cos()

    other = figures.example_kernel(kernel.rep_in.group, 2)
    other.__class__ = Broken
    return other


def largest_violation(field, elements):
    """Of k(g x) = ρ(g) k(x) ρ(g)^-1 in the coordinates that are drawn, relative to the largest value."""
    change, inverse = field.view.change, field.view.inverse
    g = change @ elements.matrix @ inverse
    one = np.ones((len(g), 1, 1))
    k = field.matrices @ (inverse if field.pair[0] == "V" else 1 * np.eye(1))
    k = (change if field.pair[1] == "V" else np.eye(1)) @ k
    left = g if field.pair[1] == "V" else one
    right = np.linalg.inv(g) if field.pair[0] == "V" else one
    return np.abs(left @ k[:1] @ right - k).max() / max(1e-3, np.abs(k).max())


# ---- orbits ----------------------------------------------------------------------------------------------------------


def test_orbits_are_images_of_their_first_point(drawn):
    orbit, _ = drawn
    x = orbit.positions[0]
    assert np.array_equal(orbit.elements[0].matrix, np.eye(orbit.group.d))
    assert np.allclose(orbit.elements.matrix @ x, orbit.positions, rtol=1e-12, atol=0)
    assert orbit.points.shape == (len(orbit.positions), min(orbit.group.d, 3))
    far = np.linalg.norm(orbit.positions @ orbit.view.change.T, axis=1)
    assert abs(far[0] - 1) < 1e-12 and far.max() <= 3 + 1e-9 and far.min() >= 1 / 3 - 1e-9


@pytest.mark.parametrize("name", FINITE)
def test_finite_orbits_are_whole(name):
    orbit, _ = made(name)
    assert orbit.complete and len(orbit.positions) == orbit.group.order
    for h in orbit.group.discrete_generators:
        apart = np.abs((orbit.positions @ h.T)[:, None] - orbit.positions).max(2)
        assert (apart.min(1) < 1e-12).all() and len(set(apart.argmin(1))) == len(apart)


@pytest.mark.parametrize("name", sorted(set(MAKE) - set(FINITE)))
def test_infinite_orbits_are_samples(name):
    orbit, _ = made(name)
    assert not orbit.complete and 10 < len(orbit.positions) <= 600
    assert "infinite" in orbit.scene().note


def test_a_point_that_mirrors_keep_and_a_limit():
    G = MAKE["7m in space"]()
    on_mirror = figures.orbit(G, [1.0, 0, 0.5])
    assert on_mirror.complete and len(on_mirror.positions) == 7
    assert "each kept by 2 of 14 elements" in on_mirror.scene().note
    some = figures.orbit(G, limit=5)
    assert len(some.positions) == 5 and not some.complete


@pytest.mark.parametrize("point", [[1.0, 2.0], [0.0, 0.0, 0.0], [1.0, np.nan, 0.0]])
def test_a_point_that_is_none(point):
    with pytest.raises(ValueError, match="expected"):
        figures.orbit(MAKE["7m in space"](), point)


def test_units_change_no_picture():
    """With c a power of two nothing is rounded differently."""
    plain, units = (MatrixGroup("boosts", lie_algebra=boosts(c)) for c in (1.0, 2.0**28))
    a, b = figures.orbit(plain), figures.orbit(units)
    assert np.abs(a.points - b.points).max() < 1e-9 and "y = L x" in b.view.note and not a.view.note
    a, b = (figures.on_plane(figures.example_kernel(G, 2)) for G in (plain, units))
    assert np.abs(a.points - b.points).max() < 1e-9


def test_the_lattice_is_drawn_in_right_angles():
    orbit, _ = made("hexagonal lattice")
    lengths = np.linalg.norm(orbit.points, axis=1)
    assert np.ptp(lengths) < 1e-12
    assert np.ptp(np.linalg.norm(orbit.positions, axis=1)) > 0.1


# ---- planes ----------------------------------------------------------------------------------------------------------


def test_the_plane_is_one_that_generators_preserve(drawn):
    orbit, _ = drawn
    view = orbit.view
    if orbit.group.d == 1:
        pytest.skip("there is no plane in one dimension")
    plane = view.plane
    assert np.allclose(plane @ plane.T, np.eye(2), atol=1e-12)
    moves = [*orbit.group.discrete_generators, *orbit.group.lie_algebra]
    kept = 0
    for m in (view.change @ m @ view.inverse for m in moves):
        kept += np.abs(m @ plane.T - plane.T @ (plane @ m @ plane.T)).max() < 1e-9 * np.abs(m).max()
    assert kept > 0


def test_the_plane_is_that_of_the_rotation():
    plane = plane_of([np.roll(np.eye(3), 1, 0)], [], 3)
    assert np.abs(plane @ np.ones(3)).max() < 1e-9
    axis = np.random.default_rng(3).standard_normal((3, 3))
    Q = np.linalg.qr(axis)[0]
    plane = plane_of([Q @ np.array(turn(9)) @ Q.T], [], 3)
    assert np.abs(plane @ Q[:, 2]).max() < 1e-9


def unitary(p, q, turn):
    """U(p, q) on real parts then imaginary parts, in a basis turned by a real orthogonal matrix."""
    J, n = np.diag([1.0] * p + [-1.0] * q), p + q
    algebra = []
    for i, j in itertools.product(range(n), repeat=2):
        for z in (1, 1j):
            A = np.zeros((n, n), complex)
            A[i, j] += z
            algebra.append(A - J @ A.conj().T @ J)
    algebra = [turn @ A @ turn.T for A in algebra if np.abs(A).max() > 0]
    return MatrixGroup(f"U({p},{q})", lie_algebra=algebra)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 1)])
def test_the_plane_is_one_on_which_forms_are_seen(p, q):
    """Turns of both halves by one phase preserve isotropic planes, on which the length is constant."""
    turn = np.linalg.qr(np.random.default_rng(p).standard_normal((p + q, p + q)))[0]
    for G in (unitary(p, q, np.eye(p + q)), unitary(p, q, turn)):
        view, forms = figures.orbit(G).view, ek.invariant_forms(V(G)).symmetric
        rows = view.plane @ view.inverse.T
        assert np.abs(rows @ forms @ rows.T).max() > 1e-2 and "vanish" not in view.note
        assert figures.on_plane(figures.example_kernel(G), ("Scalar", "Scalar")).colours.std() > 1e-3


def test_a_page_says_where_the_forms_vanish_on_the_plane():
    """A spiral in x and the opposite one in y keep no other planes than these two, on which the form x·y is zero."""
    spiral = np.array([[1.0, -1.0], [1.0, 1.0]])
    G = MatrixGroup("spirals", lie_algebra=[block_diag(spiral, -spiral.T)])
    view, forms = figures.orbit(G).view, ek.invariant_forms(V(G)).symmetric
    rows = view.plane @ view.inverse.T
    assert len(forms) and np.abs(rows @ forms @ rows.T).max() < 1e-9
    assert "The invariant forms vanish on the plane" in view.note


# ---- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS)
def test_fields_on_orbits_are_carried_along(drawn, pair):
    orbit, kernel = drawn
    field = figures.on_orbit(kernel, pair, orbit)
    at = [int(np.abs(orbit.positions - x).max(1).argmin()) for x in field.positions]
    assert largest_violation(field, orbit.elements[np.array(at)]) < 1e-9
    assert np.ptp(field.colours) <= 1e-9 * max(1, np.abs(field.colours).max())


@pytest.mark.parametrize("name", ["7m in space", "quaternions", "Lorentz, c = 3e8", "shear"])
def test_a_field_without_the_symmetry_is_not_carried_along(name):
    orbit, kernel = made(name)
    field = figures.on_orbit(broken(kernel), ("V", "V"), orbit)
    at = [int(np.abs(orbit.positions - x).max(1).argmin()) for x in field.positions]
    assert largest_violation(field, orbit.elements[np.array(at)]) > 1e-3


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", ["7m in space", "hexagonal lattice", "permutations"])
def test_what_is_drawn_on_a_plane_has_its_symmetry(name, pair):
    """Components in the plane, at the images of one point under the generators that preserve it."""
    orbit, kernel = made(name)
    field, view = figures.on_plane(kernel, pair, orbit.view), orbit.view
    assert _violation_on_plane(field, view) < 1e-9
    if pair == ("V", "V"):
        assert _violation_on_plane(figures.on_plane(broken(kernel), pair, view), view) > 1e-3


def _violation_on_plane(field, view):
    begin = field.side**2
    points, shown = field.points[begin:], field.shown[begin:]
    assert len(points) > 2
    worst, tried = 0.0, 0
    for h in field.group.discrete_generators:
        m = view.change @ h @ view.inverse
        small = view.plane @ m @ view.plane.T
        if np.abs(m @ view.plane.T - view.plane.T @ small).max() > 1e-9:
            continue
        tried += 1
        apart = np.abs((points @ small.T)[:, None] - points).max(2)
        assert apart.min(1).max() < 1e-9  # the images are images of each other
        image, (a, b) = apart.argmin(1), field.pair
        expected = shown @ np.linalg.inv(small) if a == "V" else shown
        expected = small @ expected if b == "V" else expected
        worst = max(worst, np.abs(shown[image] - expected).max())
    assert tried
    return worst


def test_grids_fill_the_plane(drawn):
    orbit, kernel = drawn
    for pair in PAIRS:
        field = figures.on_plane(kernel, pair, orbit.view)
        many = field.side ** len(orbit.view.plane)
        assert np.abs(field.points[:many]).max() == pytest.approx(EXTENT * (1 - 1 / field.side))
        assert np.allclose(orbit.view.to_plane(field.points), field.positions, rtol=1e-9, atol=1e-12)


def test_a_kernel_of_the_users_own():
    G = MAKE["7m in space"]()
    torch.manual_seed(0)
    conv = ek.nn.PointConv((2 * Scalar + V)(G), (3 * V)(G), cutoff=2.0)
    field = figures.on_orbit(conv.kernel, ("Scalar", "V"))
    assert largest_violation(field, figures.orbit(G).elements) < 1e-5
    assert next(conv.parameters()).dtype == torch.float32
    with pytest.raises(RepError, match="no block V -> Scalar"):
        figures.on_plane(conv.kernel, ("V", "Scalar"))
    assert pairs_of(conv.kernel, None) == [("Scalar", "V"), ("V", "V")]
    with pytest.raises(RepError, match="has no block between Scalar and V"):
        pairs_of(ek.nn.ImplicitKernel(Scalar(G), (V * V)(G)), None)


@pytest.mark.parametrize("draw", [figures.on_plane, figures.on_orbit, figures.errors])
def test_kernels_of_attributes_are_refused(draw):
    G = MAKE["shear"]()
    kernel = ek.nn.ImplicitKernel(V(G), V(G), edge_rep=Scalar(G))
    with pytest.raises(RepError, match="edge attributes"):
        draw(kernel)
    with pytest.raises(TypeError, match="got PointConv; pass its .kernel"):
        draw(ek.nn.PointConv(V(G), V(G)))
    with pytest.raises(TypeError, match="expected a kernel such as conv.kernel, got int"):
        draw(3)


def test_example_kernels_leave_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, other = (figures.example_kernel(MAKE["shear"]()) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters()))


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_errors_are_small_and_the_control_is_not(drawn):
    _, kernel = drawn
    e = figures.errors(kernel, 30)
    assert len(e.at) == 30 and (np.diff(e.at) >= 0).all() and e.at[0] > 0
    assert (e.double <= e.allowed[0]).all() and (e.single <= e.allowed[1]).all()
    assert np.median(e.broken) > 1e-4


def test_errors_are_those_of_their_dtype():
    e = figures.errors(made("axis")[1], 30)
    assert np.median(e.single) > 1e-8 and np.median(e.double) < 1e-12


def test_errors_of_a_broken_kernel():
    e = figures.errors(broken(made("7m in space")[1]), 20)
    assert np.median(e.double) > 1e-3 and np.median(e.single) > 1e-3


def test_the_trivial_group_has_no_errors_to_draw():
    G = MatrixGroup("one", d=3)
    assert len(figures.orbit(G).positions) == 1
    with pytest.raises(GroupError, match="no element but the identity"):
        figures.errors(figures.example_kernel(G, 1))


# ---- scenes and matplotlib -------------------------------------------------------------------------------------------


def scenes(name):
    orbit, kernel = made(name)
    fields = [figures.on_plane(kernel, p, orbit.view) for p in PAIRS]
    fields += [figures.on_orbit(kernel, p, orbit) for p in PAIRS]
    return [f.scene() for f in (orbit, *fields, figures.errors(kernel, 10))]


def test_scenes_are_finite_and_inside(drawn):
    name = next(k for k, v in _kept.items() if v is drawn)
    for scene in scenes(name):
        assert np.isfinite(scene.reach) and scene.reach > 0 and len(scene.axes) in (2, 3)
        assert scene.layers or "vanishes" in scene.note
        for layer in scene.layers:
            for item in layer.points:
                assert np.shape(item)[-1] == len(scene.axes) and np.isfinite(item).all()
            if layer.values is not None:
                assert len(layer.values) == len(layer.points) and np.abs(layer.values).max() <= 1
        if scene.image is not None:
            assert np.abs(scene.image).max() <= 1 and scene.image.shape == (scene.image.shape[0],) * 2


def test_glyphs_of_the_identity_and_of_an_arrow():
    from emkernel._scene import arrows, crosses, ellipses

    (arrow,) = arrows(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), 0.1)
    assert np.allclose(arrow[:2], [[1, 2], [4, 6]]) and np.linalg.norm(arrow - arrow[1], axis=1).max() == 5
    assert arrows(np.zeros((1, 2)), np.full((1, 2), 1e-9), 0.1) == []
    (circle,) = ellipses(np.ones((1, 2)), np.eye(2)[None])
    assert np.allclose(np.linalg.norm(circle - 1, axis=1), 1)
    ends = crosses(np.zeros((1, 3)), np.diag([3.0, 2.0, 1.0])[None])
    assert np.allclose([np.abs(e).max() for e in ends], [3, 2, 1])


@pytest.mark.parametrize("name", ["7m in space", "permutations", "shear", "reflection of a line"])
def test_plots_return_figures_and_leave_pyplot_alone(name):
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    before = dict(matplotlib.rcParams), pyplot.get_fignums(), matplotlib.get_backend()
    orbit, kernel = made(name)
    found = [ek.plots.orbit(orbit.group), ek.plots.on_plane(kernel), ek.plots.on_orbit(kernel, PAIRS[1:3]),
             ek.plots.errors(kernel, 10)]  # fmt: skip
    for figure, panels in zip(found, (1, 4, 2, 1)):
        assert isinstance(figure, Figure) and len(figure.axes) == panels
        figure.canvas.draw()
        assert any(ax.has_data() for ax in figure.axes)
    assert before == (dict(matplotlib.rcParams), pyplot.get_fignums(), matplotlib.get_backend())


def test_a_scene_is_drawn_in_axes_of_the_users_own():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    ax = figure.add_subplot()
    scene = figures.on_plane(made("7m in space")[1], ("Scalar", "Scalar")).scene()
    assert ek.plots.draw(scene, ax) is ax and ax.get_title() == "Scalar → Scalar"
    assert np.array_equal(ax.images[0].get_array(), scene.image)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "emkernel\[plot\]"'):
        ek.plots.orbit(MAKE["shear"]())


def test_words_of_infinite_groups_stay_near():
    orbit = figures.orbit(MatrixGroup("SL2Z", [[[1, 1], [0, 1]], [[0, -1], [1, 0]]]))
    assert not orbit.complete and 20 < len(orbit.positions) < 600
    assert np.linalg.norm(orbit.positions, axis=1).max() <= 3


def test_display_falls_back_where_compactness_is_not_decided(monkeypatch):
    G = MAKE["shear"]()

    def undecided(self):
        raise GroupError("not decided")

    monkeypatch.setattr(MatrixGroup, "orthogonal_basis", property(undecided))
    assert np.array_equal(display(G)[0], np.eye(2))
