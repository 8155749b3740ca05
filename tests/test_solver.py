"""Equivariant maps, irreducibles and couplings, against counts that use none of the solver."""

import os
import pickle
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import comb, factorial, prod

import numpy as np
import pytest
from oracles import closure, constraint, hom_of_spins, nullity, run, spins
from tables import FINITE, TABLE, group, skew_basis, so, turn

from emkernel import (
    GivenRep,
    GroupElement,
    GroupError,
    MatrixGroup,
    RepError,
    Scalar,
    SolverError,
    V,
    equivariant_basis,
    groups,
    irreps,
)
from emkernel.images import Images
from emkernel.solver import irreps as irreps_module
from emkernel.solver import nullspace
from emkernel.solver.coupling import couplings
from emkernel.solver.irreps import irrep_table
from emkernel.solver.nullspace import canonical, intertwiners, residual
from emkernel.solver.polynomials import polynomials
from emkernel.solver.store import Store

REDUCIBLE = [name for name, row in TABLE.items() if row.reducible]
DIMENSION = {"real": 1, "complex": 2, "quaternionic": 4}


every_group = pytest.mark.parametrize("name", TABLE)


def rows(maps):
    """(r, m, n) -> (r, m n), also for r = 0."""
    return maps.reshape(len(maps), int(np.prod(maps.shape[1:])))


def check_equivariant(rep_in, rep_out, basis, seed=12_345):
    """Residual of ρ_out(g) W = W ρ_in(g) on elements that no solver has seen."""
    g = rep_in.group.sample(5, seed)
    left, right = rep_out.rho(g)[:, None] @ basis, basis @ rep_in.rho(g)[:, None]
    scale = max(1, np.abs(rep_in.rho(g)).max(initial=0), np.abs(rep_out.rho(g)).max(initial=0))
    return np.abs(left - right).max(initial=0) / scale


# ---- bases of equivariant maps ----------------------------------------------------------------------------------


@every_group
@pytest.mark.parametrize("problem", [0, 1, 2], ids=["V to V", "V^2 to V", "V^2 to V^2"])
def test_rank_is_the_known_one_and_every_map_is_equivariant(name, problem):
    g = group(name)
    rep_in, rep_out = [(V(g), V(g)), ((V**2)(g), V(g)), ((V**2)(g), (V**2)(g))][problem]
    basis = equivariant_basis(rep_in, rep_out)
    assert basis.shape == (TABLE[name].hom[problem], rep_out.size, rep_in.size)
    assert basis.dtype == np.float64
    flat = rows(basis)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(basis)), atol=1e-10)
    assert check_equivariant(rep_in, rep_out, basis) < 1e-11 * TABLE[name].condition ** 2


@pytest.mark.parametrize("name", TABLE)
def test_known_ranks_are_those_of_the_raw_constraint(name):
    problems = [(1, 1), (2, 1), (2, 2)]
    for (p, q), rank in zip(problems, TABLE[name].hom):
        if group(name).d ** (p + q) <= 300:
            assert nullity(group(name), p, q) == rank


@every_group
def test_basis_spans_the_raw_nullspace(name):
    g = group(name)
    if g.d > 4:
        pytest.skip("the raw constraint is large")
    for p, q in ((1, 1), (2, 1)):
        basis = equivariant_basis((V**p)(g), (V**q)(g)).reshape(-1, g.d ** (p + q))
        *_, vh = np.linalg.svd(constraint(g, p, q))
        null = vh[vh.shape[1] - len(basis) :]
        assert np.abs(basis - basis @ null.T @ null).max(initial=0) < 1e-9 * TABLE[name].condition


def test_negative_control_a_map_that_is_not_equivariant_is_seen():
    g = group("SO(3)")
    assert check_equivariant(V(g), V(g), np.diag([1.0, 1.0, 2.0])[None]) > 0.1


@pytest.mark.parametrize("name", [n for n in FINITE if TABLE[n].order <= 120])
def test_ranks_of_finite_groups_are_mean_products_of_characters(name):
    g = group(name)
    elements = closure(g.discrete_generators, g.d)
    trace = np.trace(elements, axis1=1, axis2=2)
    dual = np.trace(np.linalg.inv(elements), axis1=1, axis2=2)
    mixed = (V + Scalar) * (V.T + 2 * Scalar)
    for rep_in, a, rep_out, b in (
        (V.T, dual, V, trace),
        (V**2, trace**2, V + 2 * Scalar, trace + 2),
        (V, trace, mixed, (trace + 1) * (dual + 2)),
        (V**3, trace**3, Scalar, 1),
        (0 * V, 0, V, trace),
    ):
        if rep_in(g).size * rep_out(g).size > 300:
            continue
        basis = equivariant_basis(rep_in(g), rep_out(g))
        # the invariants of b ⊗ a*; a real character is that of the dual
        count = np.mean(a * b)
        assert len(basis) == round(count)
        assert abs(count - round(count)) < 1e-6
        if len(basis):
            assert check_equivariant(rep_in(g), rep_out(g), basis) < 1e-10 * TABLE[name].condition ** 2
    listed = g.elements()
    for rep, character in ((V, trace), (V * V.T, trace * dual)):
        assert np.trace(rep(g).rho(listed), axis1=1, axis2=2).sum() == pytest.approx(
            character.sum(), abs=1e-6
        )


POWERS_OF = {
    "SO(3)": lambda p, q: hom_of_spins(2, p, q),
    "skew SO(3)": lambda p, q: hom_of_spins(2, p, q),
    "O(3)": lambda p, q: hom_of_spins(2, p, q) * (1 - (p + q) % 2),
    "SL(2)": lambda p, q: hom_of_spins(1, p, q),
    # V, complexified, is two copies of spin 1/2; the binary tetrahedral group first differs at spin 3
    "SU(2)": lambda p, q: 2 ** (p + q) * hom_of_spins(1, p, q),
    "2T": lambda p, q: 2 ** (p + q) * hom_of_spins(1, p, q),
    # V, complexified, is spin (1/2, 1/2) of SU(2) x SU(2)
    "SO(4)": lambda p, q: hom_of_spins(1, p, q) ** 2,
    "SO+(1,3)": lambda p, q: hom_of_spins(1, p, q) ** 2,
    # the pairings of p + q factors by the metric, independent while there are no more than 4 pairs
    "O(1,3)": lambda p, q: 0 if (p + q) % 2 else [1, 1, 3, 15][(p + q) // 2],
    # words of p + q letters ±1 that sum to zero, half of them with the mirror
    "O(2)": lambda p, q: 0 if (p + q) % 2 else comb(p + q, (p + q) // 2) // 2,
    "U(1)": lambda p, q: 0 if (p + q) % 2 else comb(p + q, (p + q) // 2),
    "SO+(1,1)": lambda p, q: 0 if (p + q) % 2 else comb(p + q, (p + q) // 2),
    # partitions of p + q points while there are no more than 5 of them (Bell numbers)
    "S5": lambda p, q: [1, 1, 2, 5, 15, 52][p + q],
    "trivial": lambda p, q: 2 ** (p + q),
}
LARGEST = {2: (4, 6), 3: (4, 6), 4: (3, 4), 5: (3, 4)}  # p and p + q, by dimension


@pytest.mark.parametrize("name", POWERS_OF)
def test_ranks_of_tensor_powers_are_those_of_closed_forms(name):
    g = group(name)
    for p in range(5):
        for q in range(4):
            if 0 < p + q <= LARGEST[g.d][1] and p <= LARGEST[g.d][0]:
                assert len(equivariant_basis((V**p)(g), (V**q)(g))) == POWERS_OF[name](p, q), (p, q)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SO(4)", "O(1,3)", "SO+(1,3)"])
def test_ranks_of_high_tensor_powers_are_those_of_closed_forms(name):
    g = group(name)
    for p, q in ((4, 1), (3, 2), (3, 3), (4, 2)):
        assert len(equivariant_basis((V**p)(g), (V**q)(g))) == POWERS_OF[name](p, q), (p, q)


@pytest.mark.parametrize(("name", "maps"), [
    ("O(1,3)", 3), ("SO+(1,3)", 4), ("SO(4)", 4),
])  # fmt: skip
def test_epsilon_is_found_where_orientation_is_kept(name, maps):
    """V^3 -> V: three pairings, and x, y, z -> ε(x, y, z, .)."""
    assert len(equivariant_basis((V**3)(group(name)), V(group(name)))) == maps


@every_group
def test_dual_maps_are_transposed_maps(name):
    g = group(name)
    there, back = equivariant_basis(V(g), V.T(g)), equivariant_basis(V.T.T(g), V.T(g))
    assert len(there) == len(back)
    maps = equivariant_basis(V(g), V(g)).transpose(0, 2, 1)
    assert len(equivariant_basis(V.T(g), V.T(g))) == len(maps)
    assert check_equivariant(V.T(g), V.T(g), maps) < 1e-10 * TABLE[name].condition ** 2


@pytest.mark.parametrize("name", ["Th", "O(1,3)", "SU(2)", "Borel", "skew SO(3)", "S5"])
def test_blocks_of_sums_stand_where_the_terms_do(name):
    g = group(name)
    rep_in, rep_out = (2 * V + Scalar)(g), (Scalar + V.T + V)(g)
    basis = equivariant_basis(rep_in, rep_out)
    counts = sum(n * len(equivariant_basis(s, t)) for n, s, _ in rep_in.slices for _, t, _ in rep_out.slices)
    assert len(basis) == counts
    for _, s, columns in rep_in.slices:
        for _, t, rows in rep_out.slices:
            if not len(equivariant_basis(s, t)):
                assert np.abs(basis[:, rows, columns]).max(initial=0) < 1e-12
    assert check_equivariant(rep_in, rep_out, basis) < 1e-10 * TABLE[name].condition ** 2


def test_nothing_maps_to_nothing():
    g = group("SO(3)")
    nothing = 0 * V(g)
    assert equivariant_basis(nothing, V(g)).shape == (0, 3, 0)
    assert equivariant_basis(V(g), nothing).shape == (0, 0, 3)
    assert equivariant_basis(V(g), Scalar(g)).shape == (0, 1, 3)


def test_equivariant_basis_refuses_what_is_no_bound_representation():
    g = group("SO(3)")
    with pytest.raises(RepError, match="not bound"):
        equivariant_basis(V, V(g))
    with pytest.raises(RepError, match="expected the same group"):
        equivariant_basis(V(g), V(group("O(3)")))
    with pytest.raises(RepError, match="rep_out must be a Rep"):
        equivariant_basis(V(g), 3)


def test_groups_of_equal_generators_share_their_solutions():
    a, b = MatrixGroup("a", lie_algebra=so(3)), MatrixGroup("b", lie_algebra=so(3))
    assert irrep_table(a) is irrep_table(b)
    assert irrep_table(a) is not irrep_table(group("O(3)"))
    np.testing.assert_array_equal(equivariant_basis(V(a), V(b)), equivariant_basis(V(b), V(a)))


# ---- engines ----------------------------------------------------------------------------------------------------

SMALL = [
    ("C3", 2, 2), ("C1000", 2, 2), ("D7", 3, 1), ("Th", 2, 2), ("octahedral", 2, 1), ("icosahedral", 2, 2),
    ("2T", 1, 1), ("S5", 2, 1), ("skew octahedral", 2, 1), ("mirror", 2, 1), ("U(1)", 3, 2), ("SO(3)", 2, 2),
    ("SU(2)", 1, 1), ("SO(4)", 1, 2), ("SU(3)", 1, 1), ("SO(3) x S3", 1, 1), ("O(1,1)", 2, 2), ("O(1,3)", 1, 2),
    ("SO+(1,3)", 2, 2), ("SL(2)", 2, 2), ("shear", 2, 2), ("Borel", 2, 2), ("SE(2)", 2, 1), ("skew O(1,1)", 2, 2),
]  # fmt: skip


def power(images, k):
    out = images
    for _ in range(k - 1):
        out = out.tensor(images)
    return out


@pytest.mark.parametrize(("name", "p", "q"), SMALL)
def test_engines_agree(name, p, q):
    pytest.importorskip("emlp")
    images = irrep_table(group(name)).coordinates.images
    a, b = power(images, p), power(images, q)
    by_emlp, by_numpy = intertwiners(a, b, engine="emlp"), intertwiners(a, b, engine="numpy")
    assert len(by_numpy) == nullity(group(name), p, q)
    assert by_emlp.shape == by_numpy.shape
    flat = rows(by_emlp)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-12)
    # the same space, and the same basis of it
    other = rows(by_numpy)
    np.testing.assert_allclose(flat.T @ flat, other.T @ other, atol=1e-9)
    np.testing.assert_allclose(by_emlp, by_numpy, atol=1e-9)
    for basis in (by_emlp, by_numpy):
        assert residual(a, b, basis) < 1e-10


def test_numpy_answers_where_the_iteration_of_emlp_does_not_converge(monkeypatch):
    """LAPACK's divide and conquer fails now and then on many equal singular values, depending on rounding."""
    images = irrep_table(group("SO(3)")).coordinates.images
    expected = intertwiners(power(images, 2), power(images, 2), engine="numpy")
    diverging = (lambda on: nullcontext()), (lambda matrix: np.full(matrix.shape, np.nan))
    monkeypatch.setattr(nullspace, "_emlp", lambda: diverging)
    monkeypatch.setattr(nullspace, "_emlp_available", lambda: True)
    monkeypatch.setattr(nullspace, "default_store", lambda: Store(None))
    np.testing.assert_allclose(intertwiners(power(images, 2), power(images, 2)), expected, atol=1e-9)


def test_an_unknown_engine_is_refused():
    images = irrep_table(group("C3")).coordinates.images
    with pytest.raises(ValueError, match="engine must be"):
        intertwiners(images, images, engine="jax")


@pytest.mark.parametrize(("name", "p", "q"), [
    ("SO(3)", 3, 4), ("Th", 3, 4), ("O(1,3)", 2, 3), ("SL(2)", 5, 6), ("shear", 5, 6),
])  # fmt: skip
def test_large_problems_are_solved_by_projection(name, p, q):
    images = irrep_table(group(name)).coordinates.images
    a, b = power(images, p), power(images, q)
    assert a.size * b.size >= nullspace.DENSE
    basis = intertwiners(a, b)
    if name == "SO(3)":
        assert len(basis) == hom_of_spins(2, p, q)
    if name in ("O(1,3)", "SL(2)"):
        assert len(basis) == 0
    if name == "Th":
        elements = closure(group(name).discrete_generators, 3)
        assert len(basis) == round(np.mean(np.trace(elements, axis1=1, axis2=2) ** (p + q)))
    if name == "shear":
        # Jordan blocks: V^5 = 6 + 4·4 + 5·2, and Hom between blocks has the smaller size
        jordan = [
            {k + 1 - 2 * i: comb(k, i) - comb(k, i - 1) if i else 1 for i in range(k // 2 + 1)}
            for k in (p, q)
        ]
        assert len(basis) == sum(
            m * n * min(s, t) for s, m in jordan[0].items() for t, n in jordan[1].items()
        )
    assert residual(a, b, basis) < 1e-9


def test_projection_agrees_with_the_dense_solution(monkeypatch):
    images = irrep_table(group("octahedral")).coordinates.images
    a, b = power(images, 2), power(images, 3)
    dense = intertwiners(a, b, engine="numpy")
    monkeypatch.setattr(nullspace, "DENSE", 10)
    np.testing.assert_allclose(intertwiners(a, b, engine="numpy"), dense, atol=1e-8)


def test_canonical_basis_depends_on_the_space_alone():
    rng = np.random.default_rng(0)
    for n, r in ((5, 2), (30, 7), (9, 9), (4, 0)):
        space, _ = np.linalg.qr(rng.standard_normal((n, r)))
        turned, _ = np.linalg.qr(rng.standard_normal((r, r)))
        a, b = canonical(space), canonical(space @ turned)
        np.testing.assert_allclose(a, b, atol=1e-10)
        np.testing.assert_allclose(a.T @ a, np.eye(r), atol=1e-10)
        np.testing.assert_allclose(a @ a.T, space @ space.T, atol=1e-10)


def test_solutions_that_fail_on_held_out_elements_are_refused():
    images = irrep_table(group("octahedral")).coordinates.images
    tampered = Images(images.discrete, images.lie, images.held_out[:, ::-1], "tampered")
    for engine in ("auto", "numpy"):
        with pytest.raises(SolverError, match="were not in the constraint"):
            intertwiners(images, tampered, engine=engine)


def test_results_are_the_same_in_another_process():
    """Other hash seed, other thread count, empty store."""
    code = """
        import sys
        import numpy as np
        from test_solver import results
        np.savez(sys.argv[1], **results())
    """
    path = os.path.join(os.environ["EMKERNEL_STORE"], "results.npz")
    run(code, path, PYTHONHASHSEED="4242", OMP_NUM_THREADS="2", EMKERNEL_STORE=":memory:")
    kept = dict(irreps_module._tables)
    irreps_module._tables.clear()
    try:
        here = results()
    finally:
        irreps_module._tables.clear()
        irreps_module._tables.update(kept)
    with np.load(path) as there:
        assert set(there.files) == set(here)
        for name in there.files:
            np.testing.assert_allclose(there[name], here[name], atol=1e-11, err_msg=name)


def results():
    """Whatever must not depend on the process."""
    out = {}
    for name in ("S5", "2T", "skew octahedral", "SO(3)", "O(1,3)", "SU(2)", "Borel"):
        g = group(name)
        out[f"{name} sample"] = g.sample(3, 7).matrix
        out[f"{name} basis"] = equivariant_basis((V + V**2)(g), (Scalar + V.T)(g))
        if TABLE[name].reducible:
            for r in irreps(g, 2):
                out[f"{name} {r.label} {r.type}"] = np.concatenate([*r.images.discrete, *r.images.lie])
        for k, step in enumerate(polynomials(irrep_table(g), 2).steps):
            out[f"{name} polynomial {k}"] = step
    return out


# ---- irreducibles -----------------------------------------------------------------------------------------------

TYPES = {  # labels and types in the order of discovery
    "trivial": (1, "1a real"), "C3": (2, "1a real, 2a complex"), "C4": (2, "1a real, 2a complex, 1b real"),
    "C1000": (2, "1a real, 2a complex, 2b complex"), "D7": (2, "1a real, 2a real, 2b real, 1b real"),
    "T": (2, "1a real, 3a real, 2a complex"), "Th": (2, "1a real, 3a real, 3b real, 2a complex"),
    "2T": (2, "1a real, 4a quaternionic, 3a real"), "icosahedral": (2, "1a real, 3a real, 5a real"),
    "U(1)": (3, "1a real, 2a complex, 2b complex, 2c complex"), "O(2)": (2, "1a real, 2a real, 2b real, 1b real"),
    "SO(3)": (3, "1a real, 3a real, 5a real, 7a real"), "O(3)": (2, "1a real, 3a real, 3b real, 5a real"),
    "SU(2)": (3, "1a real, 4a quaternionic, 3a real, 8a quaternionic"),
    "SU(3)": (2, "1a real, 6a complex, 12a complex, 8a real"),
    "SO(4)": (2, "1a real, 4a real, 3a real, 9a real, 3b real"),
    "SO+(1,3)": (2, "1a real, 4a real, 6a complex, 9a real"), "O(1,3)": (2, "1a real, 4a real, 6a real, 9a real"),
    "SL(2)": (3, "1a real, 2a real, 3a real, 4a real"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_types_of_irreducibles(name):
    degree, expected = TYPES[name]
    found = irreps(group(name), degree)
    assert sorted(f"{r.size} {r.type}" for r in found) == sorted(
        f"{e.split()[0][:-1]} {e.split()[1]}" for e in expected.split(", ")
    )
    assert found[0].is_trivial
    assert found[0].label == "1a"
    assert len({r.label for r in found}) == len(found)
    assert all(len(r.endomorphisms) == DIMENSION[r.type] for r in found)


def test_degree_zero_is_the_trivial_one_and_degrees_nest():
    for name in ("SO(3)", "Th", "O(1,3)"):
        lists = [irreps(group(name), k) for k in range(4)]
        assert [r.size for r in lists[0]] == [1]
        for small, large in zip(lists, lists[1:]):
            assert set(small) <= set(large)


@pytest.mark.parametrize(("name", "degree"), [
    ("trivial", 1), ("C3", 2), ("C4", 2), ("D7", 3), ("mirror", 1), ("T", 2), ("Th", 3), ("octahedral", 3),
    ("icosahedral", 3), ("S5", 4), ("2T", 4), ("C3 x C5", 3), ("skew octahedral", 3), ("skew D7", 3),
])  # fmt: skip
def test_squares_of_dimensions_sum_to_the_order(name, degree):
    """Σ d²/dim End = |G| over all real irreducibles; V is faithful, so its powers hold them all."""
    assert sum(r.size**2 / DIMENSION[r.type] for r in irreps(group(name), degree)) == TABLE[name].order


@pytest.mark.parametrize("name", [n for n in FINITE if TABLE[n].order <= 120])
def test_irreducible_characters_are_orthogonal(name):
    found = irreps(group(name), 2)
    elements = group(name).elements()
    characters = np.stack([np.trace(r.rho(elements), axis1=1, axis2=2) for r in found])
    gram = characters @ characters.T / len(elements)
    np.testing.assert_allclose(gram, np.diag([DIMENSION[r.type] for r in found]), atol=1e-8)


@pytest.mark.parametrize("name", REDUCIBLE)
def test_irreducibles_are_representations_with_the_stated_endomorphisms_and_form(name):
    g = group(name)
    a, b = g.sample(3, 5), g.sample(3, 6)
    for r in irreps(g, 2):
        m = r.rho(a)
        scale = max(1, np.abs(m).max()) * max(1, np.abs(r.rho(b)).max())
        np.testing.assert_allclose(r.rho(a @ b), m @ r.rho(b), atol=1e-9 * scale)
        for E in r.endomorphisms:
            np.testing.assert_allclose(m @ E, E @ m, atol=1e-9 * scale)
            assert np.linalg.norm(E) == pytest.approx(r.size**0.5)
        np.testing.assert_allclose(r.endomorphisms[0], np.eye(r.size), atol=1e-12)
        for E in r.endomorphisms[1:]:
            np.testing.assert_allclose(E @ E, -np.eye(r.size), atol=1e-9)
            np.testing.assert_allclose(E, -E.T, atol=1e-9)
        if r.form is not None:
            kept = m.transpose(0, 2, 1) @ r.form @ m
            np.testing.assert_allclose(kept, np.broadcast_to(r.form, m.shape), atol=1e-9 * scale**2)
            np.testing.assert_allclose(r.form, r.form.T, atol=1e-12)
        if g.is_compact:
            np.testing.assert_allclose(r.form, np.eye(r.size), atol=1e-9)
            np.testing.assert_allclose(
                m @ m.transpose(0, 2, 1), np.broadcast_to(np.eye(r.size), m.shape), atol=1e-9
            )
        for x in g.lie_algebra:
            assert r.drho(x).shape == (r.size, r.size)


@pytest.mark.parametrize("name", ["SO(3)", "O(3)", "SU(2)", "SO(4)", "SU(3)"])
def test_casimir_is_a_number_on_every_irreducible(name):
    """Σ dρ(A_k)² is a multiple of 1, l(l+1) up to scale for spins: irreducible, and of the right spin."""
    for r in irreps(group(name), 2):
        algebra = np.array([r.drho(a) / np.linalg.norm(a) for a in group(name).lie_algebra])
        casimir = np.einsum("kij,kjl->il", algebra, algebra)
        np.testing.assert_allclose(casimir, casimir[0, 0] * np.eye(r.size), atol=1e-9)
        if name == "SO(3)":
            l = (r.size - 1) // 2
            assert casimir[0, 0] == pytest.approx(-l * (l + 1) / 2)


def test_irreducibles_of_equal_groups_are_equal():
    a = irreps(MatrixGroup("a", lie_algebra=so(3)), 2)
    assert a == irreps(group("SO(3)"), 2)
    assert irreps(group("O(3)"), 1)[1] != a[1]


@pytest.mark.parametrize(
    ("plain", "skewed"), [("octahedral", "skew octahedral"), ("D7", "skew D7"), ("SO(3)", "skew SO(3)")]
)
def test_characters_do_not_depend_on_the_basis(plain, skewed):
    words = group(plain).sample(6, 0)
    same = GroupElement(group(skewed), words.coefs, words.index, words.power)
    here = [np.trace(r.rho(words), axis1=1, axis2=2) for r in irreps(group(plain), 2)]
    there = [np.trace(r.rho(same), axis1=1, axis2=2) for r in irreps(group(skewed), 2)]
    distance = np.abs(np.array(here)[:, None] - np.array(there)).max(-1)
    assert sorted(distance.argmin(1)) == list(range(len(here)))
    assert distance.min(1).max() < 1e-8


@pytest.mark.parametrize("name", [n for n in TABLE if n not in REDUCIBLE])
def test_groups_that_do_not_split_say_so(name):
    with pytest.raises(SolverError, match="not known to be compact or reductive"):
        irreps(group(name), 2)


def test_negative_degrees_are_refused():
    with pytest.raises(ValueError, match="degree"):
        irreps(group("SO(3)"), -1)


# ---- decompositions ---------------------------------------------------------------------------------------------


@every_group
def test_decomposition_is_a_change_of_basis_to_irreducibles(name):
    g = group(name)
    table = irrep_table(g)
    a = g.sample(2, 3)[0]
    for expression in (V, V.T, V**2, V * V.T, 2 * V + Scalar, (V + Scalar) ** 2):
        rep = expression(g)
        if rep.size > 40:
            continue
        parts = table.decompose(rep).parts
        total = sum(np.einsum("mia,maj->ij", back, to) for _, to, back in parts)
        cond = TABLE[name].condition ** 2
        np.testing.assert_allclose(total, np.eye(rep.size), atol=1e-10 * cond)
        rho = rep.rho(a)
        scale = cond * max(1, np.abs(rho).max())
        for r, to, back in parts:
            m = r.rho(a)
            np.testing.assert_allclose(to @ rho, m @ to, atol=1e-9 * scale)
            np.testing.assert_allclose(rho @ back, back @ m, atol=1e-9 * scale)
        assert sum(r.size * len(to) for r, to, _ in parts) == rep.size


@pytest.mark.parametrize(("name", "p"), [("SO(3)", 3), ("SO(3)", 4), ("O(3)", 3), ("skew SO(3)", 3)])
def test_multiplicities_of_spins(name, p):
    parts = irrep_table(group(name)).decompose((V**p)(group(name))).parts
    found = {}
    for r, to, _ in parts:
        found[r.size - 1] = found.get(r.size - 1, 0) + len(to)
    assert found == spins(2, p)


def test_given_representations_decompose():
    g = group("octahedral")
    s = skew_basis(9)
    images = s @ (V**2)(g).images.discrete @ np.linalg.inv(s)
    rep = GivenRep(g, images, name="V^2 in a skew basis")
    assert irrep_table(g).decompose(rep).multiplicities == irrep_table(g).decompose((V**2)(g)).multiplicities
    assert len(equivariant_basis(rep, (V**2)(g))) == TABLE["octahedral"].hom[2]
    assert check_equivariant(rep, (V**2)(g), equivariant_basis(rep, (V**2)(g))) < 1e-9


def test_a_representation_of_another_group_is_refused():
    with pytest.raises(RepError, match="belongs to"):
        irrep_table(group("SO(3)")).decompose(V(group("O(3)")))


# ---- couplings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in REDUCIBLE if group(n).d < 6])
def test_couplings_intertwine(name):
    g = group(name)
    table = irrep_table(g)
    found = irreps(g, 2)[:4]
    elements = g.sample(3, 9)
    for a in found:
        for b in found:
            total = 0
            for c in found:
                C = couplings(table, a, b, c)
                assert C.shape[1:] == (c.size, a.size, b.size)
                left = np.einsum("gck,rkij->grcij", c.rho(elements), C)
                right = np.einsum("rckl,gki,glj->grcij", C, a.rho(elements), b.rho(elements))
                assert np.abs(left - right).max(initial=0) < 1e-9 * max(1, np.abs(right).max(initial=0))
                flat = rows(C)
                np.testing.assert_allclose(flat @ flat.T, c.size * np.eye(len(C)), atol=1e-9)
                total += len(C) * c.size / len(c.endomorphisms)
            assert total <= a.size * b.size


def test_couplings_of_spins_are_the_triangle_rule():
    table = irrep_table(group("SO(3)"))
    found = irreps(group("SO(3)"), 3)
    for a in found:
        for b in found:
            for c in found:
                la, lb, lc = (r.size // 2 for r in (a, b, c))
                assert len(couplings(table, a, b, c)) == (abs(la - lb) <= lc <= la + lb)


def test_coupling_of_two_vectors_to_a_vector_is_the_cross_product():
    g = group("SO(3)")
    one = irreps(g, 1)[1]
    C = couplings(irrep_table(g), one, one, one)[0]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3))
    to = irrep_table(g).decompose(V(g)).parts[0][1][0]
    z = np.einsum("cij,i,j->c", C, to @ x, to @ y)
    cross = to @ np.cross(x, y)
    assert np.linalg.norm(np.cross(z, cross)) < 1e-10
    assert np.linalg.norm(z) == pytest.approx(np.linalg.norm(cross) / 2**0.5)


# ---- polynomials ------------------------------------------------------------------------------------------------


@every_group
def test_polynomials_are_equivariant_and_of_unit_variance(name):
    g = group(name)
    if g.d > 4:
        pytest.skip("many polynomials")
    poly = polynomials(irrep_table(g), 3)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, g.d)) @ np.linalg.inv(poly.basis).T

    def evaluate(x):
        v = x @ poly.basis.T
        out = [np.ones((len(v), 1))]
        for step in poly.steps:
            out.append((out[-1][:, :, None] * v[:, None, :]).reshape(len(v), -1) @ step.T)
        return out[1:]

    for a in g.sample(3, 8):
        for y, moved, parts in zip(evaluate(x), evaluate(x @ a.matrix.T), poly.parts):
            blocks = [r.rho(a) for r, m in parts for _ in range(m)]
            at = 0
            for block in blocks:
                n = len(block)
                wanted = y[:, at : at + n] @ block.T
                assert np.abs(moved[:, at : at + n] - wanted).max() < 1e-8 * max(1, np.abs(wanted).max())
                at += n
            assert at == y.shape[1]
    v = rng.standard_normal((4000, g.d))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    for y in evaluate(v @ np.linalg.inv(poly.basis).T):
        assert np.mean(y**2) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(("name", "sizes"), [
    ("SO(3)", [3, 5, 7, 9]), ("octahedral", [3, 5, 7, 9]), ("skew SO(3)", [3, 5, 7, 9]), ("D7", [2, 2, 2, 2]),
    ("U(1)", [2, 2, 2, 2]), ("O(1,3)", [4, 9, 16]), ("SO(4)", [4, 9, 16]), ("O(1,1)", [2, 2, 2]), ("SL(2)", [2, 3, 4]),
    ("shear", [2, 3, 4]), ("trivial", [2, 2, 2]), ("SU(2)", [4, 9, 16]),
])  # fmt: skip
def test_polynomials_are_all_the_harmonic_ones(name, sizes):
    """Sym^k modulo the form; all of Sym^k without one."""
    poly = polynomials(irrep_table(group(name)), len(sizes))
    assert [len(step) for step in poly.steps] == sizes
    assert [sum(r.size * m for r, m in parts) for parts in poly.parts] == sizes
    assert poly.is_positive == group(name).is_compact


def test_degree_zero_polynomials_are_refused():
    with pytest.raises(ValueError, match="degree"):
        polynomials(irrep_table(group("SO(3)")), 0)


# ---- generators with errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [False, True], ids=["checked", "trusted"])
@pytest.mark.parametrize("error", [1e-7, 1e-5])
@pytest.mark.parametrize(
    "name", [n for n in TABLE if n not in ("trivial", "integer shear") and group(n).d < 6]
)
def test_perturbed_generators_never_give_another_rank(name, error, trust):
    if trust and name.startswith("skew") and group(name).is_finite:
        pytest.skip("in a better basis the errors are large enough for the generators to be what they say")
    rng = np.random.default_rng(0)
    g = group(name)
    noise = [error * rng.standard_normal(m.shape) for m in (g.discrete_generators, g.lie_algebra)]
    with pytest.raises((GroupError, SolverError)):
        near = MatrixGroup(
            "near", g.discrete_generators + noise[0], g.lie_algebra + noise[1], trust_digits=trust
        )
        assert len(equivariant_basis((V**2)(near), (V**2)(near))) == TABLE[name].hom[2], "another rank"
        raise SolverError("recognised as the group that was meant, which is as good")


@pytest.mark.parametrize("engine", ["emlp", "numpy"])
def test_a_rank_without_a_clear_gap_is_refused(engine):
    images = irrep_table(group("SO(3)")).coordinates.images
    noise = 1e-6 * np.random.default_rng(0).standard_normal(images.lie.shape)
    near = Images(images.discrete, images.lie + noise, images.held_out, "near")
    with pytest.raises(SolverError, match="no clear gap .* few digits"):
        intertwiners(images, near, engine=engine)


@pytest.mark.parametrize("name", ["SO(3)", "U(1)", "O(1,3)", "SU(2)", "Th", "SL(2)"])
def test_rounding_errors_are_forgiven(name):
    rng = np.random.default_rng(0)
    g = group(name)
    noise = [3e-16 * rng.standard_normal(m.shape) for m in (g.discrete_generators, g.lie_algebra)]
    near = MatrixGroup("near", g.discrete_generators + noise[0], g.lie_algebra + noise[1])
    assert len(equivariant_basis((V**2)(near), (V**2)(near))) == TABLE[name].hom[2]


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("name", ["SO(3)", "U(1)", "SU(2)", "O(1,3)", "Borel", "shear"])
def test_scale_of_the_algebra_does_not_matter(name, scale):
    g = group(name)
    scaled = MatrixGroup("scaled", g.discrete_generators, scale * g.lie_algebra)
    assert len(equivariant_basis((V**2)(scaled), (V**2)(scaled))) == TABLE[name].hom[2]


@pytest.mark.parametrize("make", [
    lambda: MatrixGroup("Lorentz, c = 100", lie_algebra=[_units(a) for a in group("SO+(1,3)").lie_algebra]),
    lambda: MatrixGroup("two generators", lie_algebra=[group("SO+(1,3)").lie_algebra[k] for k in (0, 4, 5)]),
    lambda: MatrixGroup("mixed", lie_algebra=np.tensordot(skew_basis(6, 20.0), group("SO+(1,3)").lie_algebra, 1)),
])  # fmt: skip
def test_other_generators_of_the_lorentz_group(make):
    g = make()
    assert [len(equivariant_basis((V**2)(g), (V**2)(g))), len(equivariant_basis(V(g), V(g)))] == [4, 1]


def _units(a, c=100.0):
    units = np.diag([1 / c, 1.0, 1.0, 1.0])
    return units @ a @ np.linalg.inv(units)


def test_a_turn_by_an_irrational_angle_has_the_maps_of_the_circle():
    g = MatrixGroup("one radian", [turn(1.0)])
    assert [len(equivariant_basis((V**p)(g), (V**q)(g))) for p, q in ((1, 1), (2, 1), (2, 2))] == [2, 0, 6]


def test_a_small_turn_is_not_the_identity():
    g = MatrixGroup("C1000000", [turn(2 * np.pi / 1_000_000)])
    assert [len(equivariant_basis((V**p)(g), (V**q)(g))) for p, q in ((1, 1), (2, 1), (2, 2))] == [2, 0, 6]


# ---- processes ------------------------------------------------------------------------------------------------


def test_an_emlp_that_cannot_be_imported_is_named(tmp_path):
    (tmp_path / "emlp").mkdir()
    (tmp_path / "emlp" / "__init__.py").write_text("import a_package_that_emlp_forgot_to_ask_for")
    told = run(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import emkernel as ek
        from tables import group
        try:
            print(len(ek.equivariant_basis(ek.V(group("D7")), ek.V(group("D7")))), "map")
        except ek.SolverError as e:
            print(e)
    """,
        tmp_path,
        EMKERNEL_STORE=":memory:",
    )
    assert "1 map" in told or "a_package_that_emlp_forgot_to_ask_for" in told


FORK = """
    import os, signal, sys
    import emkernel as ek
    from tables import group
    {before}
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        try:
            basis = ek.equivariant_basis(*[ek.V(group("D7"))] * 2)
            os._exit(10 + len(basis))
        except ek.SolverError as e:
            os._exit(3 if "fork" in str(e) else 4)
        except BaseException:
            os._exit(5)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ('ek.equivariant_basis(*[ek.V(group("Th"))] * 2)', "3"),
        ('ek.equivariant_basis(*[ek.V(group("D7"))] * 2)', "11"),
        ("import jax; jax.numpy.ones((9, 9)) @ jax.numpy.ones((9, 9))", "3"),
    ],
    ids=[
        "a new solve is refused",
        "what was solved before is there",
        "a new solve is refused where the user runs jax",
    ],
)
@pytest.mark.filterwarnings("ignore:os.fork")
def test_forked_processes_do_not_hang(before, expected):
    pytest.importorskip("emlp")
    assert run(FORK.format(before=before), EMKERNEL_STORE=":memory:").strip() == expected


# ---- permutations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: groups.S(7), lambda: groups.A(6)], ids=["S(7)", "A(6)"])
def test_orbits_of_tuples_of_points_give_what_averaging_gives(make):
    table = irrep_table(make())
    table.decompose((V**2)(table.group))
    met = 0
    for a, b, c in product(table.irreps[1:], repeat=3):
        if 256 < a.size * b.size * c.size < 4000:
            images = [r.normal for r in (a, b, c)]
            assert all(i.permuted is not None for i in images)
            orbits = nullspace.coupling_maps(*images)
            plain = [replace(i, permuted=None, digest=i.digest + "averaged") for i in images]
            np.testing.assert_allclose(orbits, nullspace.coupling_maps(*plain), atol=1e-12)
            met += 1
    assert met >= 3


def partitions(n, largest=None):
    if n == 0:
        yield ()
    for k in range(min(n, largest or n), 0, -1):
        for rest in partitions(n - k, k):
            yield (k, *rest)


def kronecker(n):
    """Multiplicity of the trivial representation in a ⊗ b ⊗ c for (n), (n-1, 1), (n-2, 2), (n-2, 1, 1) of S_n, summed
    over all cycle types λ with weight 1/z_λ. With c_k cycles of length k, unordered pairs of points have the character
    C(c_1, 2) + c_2 = (n) + (n-1, 1) + (n-2, 2), and Λ² of points C(c_1, 2) - c_2 = (n-1, 1) + (n-2, 1, 1)."""
    out = {}
    for cycles in partitions(n):
        one, two = cycles.count(1), cycles.count(2)
        z = prod(k ** cycles.count(k) * factorial(cycles.count(k)) for k in set(cycles))
        vector = one - 1
        values = (1, vector, comb(one, 2) + two - one, comb(one, 2) - two - vector)
        for triple in product(range(4), repeat=3):
            out[triple] = out.get(triple, 0) + Fraction(prod(values[i] for i in triple), z)
    return out


@pytest.mark.parametrize("n", [12, 20])
def test_all_couplings_of_permutations_of_pairs(n):
    table = irrep_table(groups.S(n))
    table.decompose((V**2)(table.group))
    sizes = (1, n - 1, n * (n - 3) // 2, (n - 1) * (n - 2) // 2)
    named = [next(r for r in table.irreps if r.size == size) for size in sizes]
    expected = kronecker(n)
    rng = np.random.default_rng(n)
    g = table.group.sample(1, 31)[0]
    for triple in product(range(4), repeat=3):
        a, b, c = (named[i] for i in triple)
        C = couplings(table, a, b, c)
        assert C.shape == (expected[triple], c.size, a.size, b.size) and len(C) == expected[triple]
        C = np.asarray(C)
        x, y = rng.standard_normal(a.size), rng.standard_normal(b.size)
        value, moved = C @ y @ x, C @ (b.rho(g) @ y) @ (a.rho(g) @ x)
        np.testing.assert_allclose(moved, value @ c.rho(g).T, atol=1e-11 * max(1, np.abs(value).max(initial=0)))
        gram = rows(C) @ rows(C).T
        np.testing.assert_allclose(gram, c.size * np.eye(len(C)), atol=1e-9)


def test_seeds_are_those_of_the_couplings_that_are_kept_whole(monkeypatch):
    table = irrep_table(groups.A(6))
    table.decompose((V**2)(table.group))
    met = 0
    for a, b, c in product(table.irreps[1:], repeat=3):
        if 256 < a.size * b.size * c.size < 4000:
            images = [r.normal for r in (a, b, c)]
            whole = nullspace.coupling_maps(*images)
            with monkeypatch.context() as small:
                small.setattr(nullspace, "LARGEST", 256)
                seeded, again = (np.asarray(nullspace.coupling_maps(*images)) for _ in range(2))
            assert seeded.tobytes() == again.tobytes()
            spans = [m.reshape(len(m), -1) for m in (whole, seeded)]
            assert spans[0].shape == spans[1].shape
            np.testing.assert_allclose(*(m.T @ m for m in spans), atol=1e-11)
            met += len(whole)
    assert met >= 3


def turned(seed):
    """Orthonormal as before, and not of invariant functions."""
    return seed @ np.linalg.qr(np.random.default_rng(0).standard_normal((seed.shape[2],) * 2))[0]


def made_of_one_point(seed):
    """Kept by the stabiliser, and not M_0 of its own functions: the identity on both."""
    return np.eye(seed.shape[1])[None] * np.linalg.norm(seed[0]) / np.sqrt(seed.shape[1])


@pytest.mark.parametrize(
    "change",
    [lambda s: 1.001 * s, lambda s: s[:, ::-1], lambda s: s[:, 1:], lambda s: np.nan * s, turned, made_of_one_point],
)
def test_wrong_seeds_are_solved_again(monkeypatch, tmp_path, change):
    monkeypatch.setenv("EMKERNEL_STORE", str(tmp_path))
    monkeypatch.setattr(nullspace, "LARGEST", 256)
    table = irrep_table(groups.S(7))
    table.decompose((V**2)(table.group))
    a = max(table.irreps, key=lambda r: r.size)
    right = np.asarray(nullspace.coupling_maps(a.normal, a.normal, a.normal))
    kept = {key: arrays for key, arrays in nullspace.default_store().items() if "seeds" in arrays}
    (key,) = kept
    nullspace.default_store().put(key, {"seeds": change(kept[key]["seeds"])})
    np.testing.assert_array_equal(nullspace.coupling_maps(a.normal, a.normal, a.normal), right)


# ---- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Oh", "Lorentz", "SL2", "S(5)"])
def test_products_act_as_their_matrices(name):
    V = irrep_table(groups.get(name)).coordinates.images
    pair, rng = V.tensor(V.dual()), np.random.default_rng(0)
    x = rng.standard_normal((pair.size, 3))
    for moved, m, p, q in zip(
        pair.times(x),
        (pair.discrete, pair.lie, pair.held_out),
        (V.discrete, V.lie, V.held_out),
        (V.dual().discrete, V.dual().lie, V.dual().held_out),
    ):
        np.testing.assert_allclose(moved, m @ x, atol=1e-12 * max(1, np.abs(m).max(initial=0)))
        for i in range(len(m)):
            one = np.eye(V.size)
            expected = np.kron(p[i], one) + np.kron(one, q[i]) if m is pair.lie else np.kron(p[i], q[i])
            np.testing.assert_allclose(m[i], expected, atol=1e-12)
    assert pickle.loads(pickle.dumps(pair)).probes[0].tobytes() == pair.probes[0].tobytes()


def test_a_subspace_that_moves_is_seen():
    pair = irrep_table(groups.O(3)).coordinates.images
    pair = pair.tensor(pair)
    trace = np.eye(3).reshape(9, 1) / np.sqrt(3)
    image, defect = pair.restricted(trace, "trace")
    assert defect < 1e-12 and np.abs(image.held_out - 1).max() < 1e-12
    assert pair.restricted(np.eye(9)[:, :1], "xx")[1] > 0.1


def test_all_irreducibles_of_a_group_too_large_are_refused():
    with pytest.raises(GroupError, match=r"362880 elements.*Ask for those up to a degree"):
        irreps(groups.S(9), degree=None)
