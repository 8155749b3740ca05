"""Kernels of low degree have a larger symmetry: it is found, and is that of real kernels with random weights."""

import math

import numpy as np
import pytest
import torch

import emkernel as ek
from emkernel import Scalar, V, groups, nn
from emkernel._larger import motions, of_fields, of_kernels
from emkernel.solver.irreps import irrep_table

# group: the lowest degree at which kernels between scalars, and between vectors, have no larger continuous symmetry
LOWEST = {"Cnv(5)": (5, 3), "C6": (6, 4), "Oh": (4, 2), "T": (3, 2), "Ico": (6, 4), "S4": (3, 1), "O2z": (2, 2)}


def turned(G):
    """The same group in a basis that is not orthogonal."""
    basis = np.random.default_rng(3).standard_normal((G.d, G.d)) + 2 * np.eye(G.d)
    change = [basis @ h @ np.linalg.inv(basis) for h in G.discrete_generators]
    lie = [basis @ A @ np.linalg.inv(basis) for A in G.lie_algebra]
    return ek.MatrixGroup(f"{G.name}, turned", discrete_generators=change, lie_algebra=lie)


def dimension(kernel, draws=3):
    """Of the X with dk(v) X v = B k(v) - k(v) A for networks of random weights, by automatic derivatives."""
    kernel = kernel.double()
    m, n, d = kernel.rep_out.size, kernel.rep_in.size, kernel.rep_in.group.d
    v = kernel.embed.example(2 * (d * d + m * m + n * n), torch.Generator().manual_seed(1))
    unit = np.eye(m * m).reshape(-1, m, m), np.eye(n * n).reshape(-1, n, n)
    rows = []
    for _ in range(draws):  # the same A and B for all weights
        kernel.reset_parameters()
        with torch.no_grad():
            k = kernel(v).numpy()
            slopes = [torch.func.jvp(kernel, (v,), (e.expand_as(v),))[1].numpy() for e in torch.eye(d).double()]
        # dk X v, B k and k A, one column for each entry of X, B and A
        columns = [s * v.numpy()[:, j, None, None] for s in slopes for j in range(d)]
        columns += [-e @ k for e in unit[0]] + [k @ e for e in unit[1]]
        rows.append(np.stack([c.ravel() for c in columns], 1))
    _, s, vh = np.linalg.svd(np.concatenate(rows), full_matrices=False)
    null = vh[s < 1e-8 * s[0]][:, : d * d]
    return int((np.linalg.svd(null, compute_uv=False) > 1e-5).sum()) if len(null) else 0


@pytest.mark.parametrize("name", LOWEST)
def test_the_lowest_degree_that_tells_a_group_from_a_larger_one(name):
    G = groups.get(name)
    own = len(irrep_table(G).coordinates.lie_closure)
    for rep, lowest in zip((Scalar(G), V(G)), LOWEST[name]):
        dims = [len(motions(rep, rep, k)) for k in range(1, lowest + 1)]
        assert dims[-1] == own, (rep, dims)
        assert all(k > own for k in dims[1:-1]), (rep, dims)
        assert (of_fields(rep, 2) is None) == (lowest <= 2)
    assert "from degree 3 on" in of_fields(V(groups.get("Cnv(5)")), 2)


@pytest.mark.parametrize(("name", "skew", "degrees"), [
    ("Cnv(5)", False, (2, 3)), ("Oh", False, (1, 2)), ("C3z", True, (1, 2)), ("O11", True, (1,)),
    ("Lorentz", False, (1,)), ("SL2", False, (1, 2)), ("SU2", False, (2,)), ("Galilei1", False, (1, 2)),
    ("Shear", False, (1, 2)), ("S3", True, (1, 2)), ("Scale3", False, (2,)),
])  # fmt: skip
def test_real_kernels_have_the_symmetry_that_is_found(name, skew, degrees):
    G = turned(groups.get(name)) if skew else groups.get(name)
    torch.manual_seed(0)
    size = {"hidden": 6, "layers": 1, "width": 2, "radial": 3, "spread": 1}
    for rep_in, rep_out in ((Scalar(G), V(G)), (V(G), V(G)), (V(G), Scalar(G))):
        for degree in degrees:
            try:
                kernel = nn.ImplicitKernel(rep_in, rep_out, degree=degree, **size)
            except ek.RepError:
                continue
            assert dimension(kernel) == len(motions(rep_in, rep_out, degree)), (rep_in, rep_out, degree)


def test_the_reports_say_so():
    G = groups.get("Cz(5)")
    field = (2 * Scalar + V)(G)
    report = ek.check_group(G)
    said = [fact for fact in report.facts if "a larger group" in fact]
    assert report.passed and [f.split(" are ")[0] for f in said] == [
        "kernels of degree 2 from Scalar to Scalar", "kernels of degree 2 from V to V",
    ]  # fmt: skip
    low, enough = (nn.PointConv(field, field, degree=k, width=2, hidden=4) for k in (2, 5))
    (warning,) = ek.check_equivariance(low).warnings
    assert "of dimension 1 where this one has 0; from degree 3 on they are not" in warning
    assert not ek.check_equivariance(enough).warnings
    # one layer of a network that sees the axis is enough
    assert of_kernels([low.kernel]) and not of_kernels([low.kernel, enough.kernel])
    # gates see the invariants of degree five; a fixed basis without them is as it was
    scalar = Scalar(G)
    assert not of_kernels([nn.ImplicitKernel(scalar, V(G), degree=5, width=2)])
    assert "of dimension 1" in of_kernels([nn.FixedKernel(scalar, V(G), degree=2)])


def test_a_pair_alone_may_not_see_what_all_together_do():
    G = groups.get("Cz(5)")
    field = (Scalar + V)(G)
    (warning,) = ek.check_equivariance(nn.PointConv(field, field, degree=3, width=2, hidden=4)).warnings
    assert "together tell the group from larger ones" in warning and "from degree 5 on they are not" in warning
    assert not ek.check_equivariance(nn.PointConv(field, field, degree=5, width=2, hidden=4)).warnings


def test_a_turn_by_any_angle_is_what_the_kernel_does_not_see():
    torch.manual_seed(0)
    G, axis = groups.get("Cz(5)"), groups.get("SO2z")
    x = torch.randn(20, 3).double()
    for degree, seen in ((2, False), (3, True)):
        kernel = nn.ImplicitKernel(V(G), V(G), degree=degree, width=4).double()
        error = ek.equivariance_error(lambda v, k=kernel: k(v).flatten(1), [x], [V(axis)], V(axis) >> V(axis))
        assert (error > 1e-3) == seen and (seen or error < 1e-10), degree


def test_nothing_is_said_of_what_was_not_found_out(monkeypatch):
    G = groups.get("Cz(5)")
    assert of_kernels([]) is None
    with_normals = nn.ImplicitKernel(Scalar(G), Scalar(G), V(G), width=2)
    assert of_kernels([with_normals]) is None
    two = [nn.ImplicitKernel(Scalar(H), Scalar(H), width=2) for H in (G, groups.get("C6z"))]
    assert of_kernels(two[:1]) and of_kernels(two[1:]) and of_kernels(two) is None
    assert of_fields(V(groups.get("Rubik")), 2) is None  # too large
    monkeypatch.setattr("emkernel._larger.UNKNOWNS", 5)
    assert motions(Scalar(G), Scalar(G), 2) is None


def test_the_larger_group_may_shrink_before_it_is_gone():
    """Binary dihedral on quaternions: invariants of degree 2 have all of SO(4), of degree 4 still one dimension."""
    c, s = math.cos(math.pi / 5), math.sin(math.pi / 5)
    turn = [[c, -s, 0, 0], [s, c, 0, 0], [0, 0, c, s], [0, 0, -s, c]]
    swap = [[0, 0, -1, 0], [0, 0, 0, -1], [1, 0, 0, 0], [0, 1, 0, 0]]
    G = ek.MatrixGroup("dicyclic", discrete_generators=[turn, swap])
    assert G.order == 20
    said = of_fields(Scalar(G), 2)
    assert "of dimension 6 where this one has 0; from degree 4 on of dimension 1, up to degree 7 at least" in said
