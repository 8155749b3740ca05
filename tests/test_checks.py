"""The checkers are green on what is right, and red on everything that is broken on purpose."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from torch import nn

from emkernel import (
    GivenRep,
    MatrixGroup,
    RepError,
    Scalar,
    SolverError,
    V,
    _check_group,
    _check_irreps,
    _check_maps,
    groups,
    irreps,
    knn_graph,
)
from emkernel._conditioning import condition, tolerance
from emkernel.checks import check_equivariance, check_group, check_rep, equivariance_error
from emkernel.errors import GroupError
from emkernel.nn import (
    EMLP,
    BatchNorm,
    Bilinear,
    Gate,
    ImplicitKernel,
    InvariantPool,
    Invariants,
    Linear,
    PointConv,
)
from emkernel.rep import VectorRep
from emkernel.solver.irreps import IrrepTable
from emkernel.testing import assert_equivariant, assert_equivariant_module, assert_group, assert_rep

SKEW = np.array([[1.0, 0.7, 0.0], [0.0, 2.0, -0.5], [0.3, 0.0, 1.0]])
BACK = np.linalg.inv(SKEW)
J = np.kron([[0.0, 1.0], [-1.0, 0.0]], np.eye(2))


def skew_o3():
    O3 = groups.O(3)
    return MatrixGroup("skewO3", SKEW @ O3.discrete_generators @ BACK, SKEW @ O3.lie_algebra @ BACK)


def shear():
    return MatrixGroup("shear", lie_algebra=[[[0, 1], [0, 0]]])


def sl2z():
    return MatrixGroup("SL2Z", [[[1, 1], [0, 1]], [[0, -1], [1, 0]]])


# constructor and what is known of the group
GROUPS = {
    "Trivial": (lambda: groups.Trivial(2), {"order": 1, "dimension": 0, "form": [[0, 1], [5, 0]]}),
    "sign": (lambda: MatrixGroup("sign", [[[-1]]]), {"order": 2}),
    "Th": (groups.Th, {"order": 24, "form": np.eye(3)}),
    "O3": (lambda: groups.O(3), {"dimension": 3, "form": np.eye(3)}),
    "Lorentz": (groups.Lorentz, {"dimension": 6, "form": np.diag([1, -1, -1, -1])}),
    "skewO3": (skew_o3, {"dimension": 3, "form": BACK.T @ BACK}),
    "SU2": (lambda: groups.SU(2), {"dimension": 3, "form": [np.eye(4), J]}),
    "shear": (shear, {"dimension": 1, "form": [[0, 1], [-1, 0]]}),
}
SOME = ["Th", "Lorentz", "skewO3"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def words(report):
    """The text of a report on one line."""
    return " ".join(str(report).split())


def red(report):
    return " | ".join(c.name for c in report.failures)


# ---- groups -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GROUPS)
def test_groups_pass(name):
    make, known = GROUPS[name]
    G = make()
    report = check_group(G, **known)
    assert report.passed, str(report)
    assert report.error < 1e-10
    assert (report.order, report.is_compact) == (G.order, G.is_compact)
    assert report.completely_reducible == (name != "shear")
    text = str(report)
    for word in (G.name, f"d = {G.d}", "bilinear forms", "couplings", "PointConv", "in V^2", "passed", " s]"):
        assert word in text
    assert all(len(line) <= 100 for line in text.splitlines()), text
    assert sum(s.seconds for s in report.sections) == report.seconds > 0
    assert sum("is complete" in c.name for c in report.checks) >= 4
    assert {c.dtype for c in report.checks} == {torch.float64, torch.float32}


def test_facts_of_a_group():
    report = check_group(groups.O(3))
    assert [(r.label, r.type, copies) for r, copies in report.multiplicities] == [
        ("1a", "real", (0, 1)),
        ("3a", "real", (1, 0)),
        ("3b", "real", (0, 1)),
        ("5a", "real", (0, 1)),
    ]
    assert (report.order, report.dimension) == (None, 3)
    assert "signature (1, 3)" in str(check_group(groups.Lorentz(), degree=1, quick=True))
    with pytest.raises(FrozenInstanceError):
        report.order = 3


def test_a_wrong_generator_is_red():
    right = groups.Th()
    quarter = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    wrong = MatrixGroup("Th?", [quarter, *right.discrete_generators[1:]])
    assert check_group(wrong, quick=True).passed  # it is a group, though not the one that was meant
    report = check_group(wrong, order=24, quick=True)
    assert red(report) == "expected order 24" and "found" in str(report)


def test_a_wrong_form_or_dimension_is_red():
    eta = np.diag([1.0, -1, -1, -1])
    lie = groups.Lorentz().lie_algebra.copy()
    lie[0] = -lie[0] @ eta
    assert "stated form" in red(check_group(MatrixGroup("Lorentz?", lie_algebra=lie[:1]), form=eta, quick=True))
    one = MatrixGroup("SO3?", lie_algebra=groups.SO(3).lie_algebra[:1])
    assert red(check_group(one, dimension=3, quick=True)) == "expected a Lie algebra of dimension 3"
    assert red(check_group(one, order=4, quick=True)) == "expected order 4"
    mirror = MatrixGroup("mirror?", [np.diag([1.0, -1.5, 1.0])])
    assert "stated form" in red(check_group(mirror, form=np.eye(3), quick=True))


def test_a_finite_group_has_all_its_irreducibles():
    report = check_group(groups.Th(), quick=False)
    assert sum(r.size**2 / len(r.endomorphisms) for r in report.irreps) == 24
    assert "all 6 irreducibles" in words(report) and "24 of 24" in words(report) and "8 for 8 classes" in words(report)
    assert check_group(groups.Th(), quick=True).irreps is None
    assert check_group(groups.O(3), degree=1).irreps is None


def test_the_invariants_of_a_group():
    text = words(check_group(groups.Oh(), quick=True))
    assert "1 symmetric, 0 antisymmetric; signature (3, 0)" in text
    assert "degree 0, 1, ...: 1 0 1 0 2 0 3 0 4" in text
    text = words(check_group(groups.Galilei(1), quick=True))
    assert "signature (1, 0) with a radical of dimension 2" in text
    assert "0 symmetric, 1 antisymmetric" in words(check_group(groups.Sp(4), quick=True))
    assert "degree 0, 1, ...: 1 0 1 0 1" in words(check_group(groups.Lorentz(), quick=True))


def test_quick_leaves_out_what_takes_long():
    titles = [s.title for s in check_group(groups.Th(), quick=True).sections]
    assert titles == ["group", "invariants", "irreducibles"]
    assert red(check_group(groups.Th(), order=12, quick=True)) == "expected order 12"


def test_what_is_not_done_is_said(monkeypatch):
    report = check_group(shear(), degree=1)
    assert report.passed and "shear is not known to be compact or reductive" in words(report)
    monkeypatch.setattr(_check_group, "LARGEST", 8)
    monkeypatch.setattr(_check_group, "RELATED", 7)
    monkeypatch.setattr(_check_irreps, "ORDER", 20)
    monkeypatch.setattr(_check_maps, "COUPLED", 26)
    report = check_group(groups.Th())
    assert report.passed and len(report.multiplicities[0][1]) == 1
    for text in (
        "splitting V^2, of dimension 9: larger than 8",
        "order 24, at most 20",
        "1 larger triples, of 2",
        "relations of the group on 3a: more than 7 dimensions",
    ):
        assert text in words(report) or text in str(report.refused), str(report)
    assert f"{len(report.refused)} not done; " in str(report)


@pytest.mark.parametrize(
    ("limit", "value", "text"),
    [
        ("ENTRIES", 8, "Hom(V, V): 1 maps of 3 x 3 are too large to build"),
        ("UNKNOWNS", 8, "independent count of Hom(V, V), 1 maps: 3 x 3 unknowns are too many"),
        ("TRIPLES", 1, "couplings of 1 larger triples, of 2: at most 1"),
    ],
)
def test_maps_that_are_too_large_are_left_out(limit, value, text, monkeypatch):
    monkeypatch.setattr(_check_maps, limit, value)
    report = check_group(groups.O(3), degree=1)
    assert report.passed and text in words(report)
    assert ("Hom(V, V) is complete" in str(report)) == (limit == "TRIPLES")


def test_large_maps_without_irreducibles_are_left_out(monkeypatch):
    monkeypatch.setattr(_check_maps, "UNSPLIT", 3)
    assert "Hom(V, V): 2 x 2 unknowns without irreducibles" in words(check_group(shear(), degree=1))


def test_a_layer_of_large_pieces_is_left_out(monkeypatch):
    monkeypatch.setattr(_check_group, "COUPLED", 4)
    report = check_group(groups.O(3))
    assert report.passed and "a layer with the pieces of V^2: dimension 5, at most 4" in words(report)


def test_a_large_group_is_no_burden():
    report = check_group(groups.get("Rubik"), quick=True)
    assert report.passed and report.order == 43252003274489856000
    assert sorted((r.size, r.type, copies) for r, copies in report.multiplicities) == [
        (1, "real", (2,)),
        (7, "real", (1,)),
        (11, "real", (1,)),
        (12, "real", (1,)),
        (16, "complex", (1,)),
    ]
    assert "splitting V^2, of dimension 2304" in words(report)


@pytest.mark.parametrize("name", ["Th", "O3", "shear"])
def test_a_truncated_basis_is_red(name, monkeypatch):
    whole = _check_maps.equivariant_basis
    monkeypatch.setattr(_check_maps, "equivariant_basis", lambda a, b: whole(a, b)[:-1])
    report = check_group(GROUPS[name][0]())
    assert "Hom(V, V) is complete" in red(report) and report.error >= 1


@pytest.mark.parametrize("name", ["Th", "skewO3"])
def test_a_basis_that_is_not_equivariant_is_red(name, monkeypatch):
    whole = _check_maps.equivariant_basis
    monkeypatch.setattr(_check_maps, "equivariant_basis", lambda a, b: whole(a, b) + 1e-6)
    assert "Hom(V, V) is equivariant and orthonormal" in red(check_group(GROUPS[name][0](), degree=1))


def test_truncated_couplings_are_red(monkeypatch):
    whole = _check_maps.couplings
    monkeypatch.setattr(_check_maps, "couplings", lambda *triple: whole(*triple)[:-1])
    assert red(check_group(groups.Th())) == "couplings are complete"
    monkeypatch.setattr(_check_maps, "couplings", lambda *triple: whole(*triple) + 1e-6)
    assert red(check_group(groups.Th())) == "couplings are equivariant on unseen elements"


def test_a_truncated_decomposition_is_red(monkeypatch):
    whole = IrrepTable.decompose

    def without_last(self, rep):
        parts = whole(self, rep).parts
        return type(whole(self, rep))(parts[:-1] if len(parts) > 1 else parts)

    monkeypatch.setattr(IrrepTable, "decompose", without_last)
    failures = red(check_group(groups.Th()))
    assert "V^2 = " in failures and "Hom(V^2, V^2) is complete" in failures


def test_a_missing_irreducible_is_red(monkeypatch):
    whole = _check_irreps.irreps
    monkeypatch.setattr(_check_irreps, "irreps", lambda G, degree: whole(G, degree)[: None if degree else -1])
    failures = red(check_group(groups.Th(), degree=1))
    assert "Σ d²/e" in failures and "as many complex irreducibles as conjugacy classes" in failures


def test_a_wrong_type_is_red(monkeypatch):
    whole = _check_irreps.irreps

    def mistaken(G, degree):
        return [replace(r, type="real") if r.type == "complex" else r for r in whole(G, degree)]

    monkeypatch.setattr(_check_irreps, "irreps", mistaken)
    failures = red(check_group(groups.Th(), degree=1))
    assert "types agree" in failures and "conjugacy classes" in failures


@pytest.mark.parametrize("name", ["Th", "Lorentz", "skewO3"])
def test_wrong_invariants_are_red(name, monkeypatch):
    G = GROUPS[name][0]()
    forms, polynomials = _check_irreps.invariant_forms, _check_irreps.invariant_polynomials

    def crooked(rep):
        found = forms(rep)
        return replace(found, symmetric=found.symmetric + 1e-5)

    monkeypatch.setattr(_check_irreps, "invariant_forms", crooked)
    assert "bilinear forms are invariant" in red(check_group(G, quick=True))
    monkeypatch.setattr(_check_irreps, "invariant_forms", forms)

    def bent(rep, degree):
        found = polynomials(rep, degree)
        return replace(found, coefficients=tuple(c + 1e-5 for c in found.coefficients))

    monkeypatch.setattr(_check_irreps, "invariant_polynomials", bent)
    assert red(check_group(G, quick=True)) == "polynomials are invariant on unseen elements"
    if G.is_finite:

        def fewer(rep, degree):
            found = polynomials(rep, degree)
            return replace(found, coefficients=tuple(c[:-1] if k == 4 else c for k, c in enumerate(found.coefficients)))

        monkeypatch.setattr(_check_irreps, "invariant_polynomials", fewer)
        assert red(check_group(G, quick=True)) == "as many polynomials as Molien's series"


def test_a_signature_that_is_not_clear_is_said(monkeypatch):
    def unclear(*_):
        raise SolverError("the form has the eigenvalue 1e-7")

    monkeypatch.setattr(_check_irreps.InvariantForms, "signature", unclear)
    assert "signature unclear to rounding" in str(check_group(groups.Th(), quick=True))


def test_a_broken_layer_is_red(monkeypatch):
    whole = PointConv.forward
    monkeypatch.setattr(PointConv, "forward", lambda self, *args: whole(self, *args) + 1e-4)
    report = check_group(groups.Th(), degree=1)
    assert "in float64" in red(report) and "in float32" in red(report) and 1e-6 < report.error < 1e-2


def test_exceptions_become_red_lines(monkeypatch):
    def fail(*_):
        raise RuntimeError("something is odd")

    monkeypatch.setattr(_check_irreps, "irreps", fail)
    report = check_group(groups.Th())
    assert not report.passed and report.error == np.inf
    assert "RuntimeError: something is odd" in str(report)


@pytest.mark.parametrize("c", [3e4, 3e5])
def test_what_fails_everywhere_for_one_reason_is_said_once(c):
    """Boosts in units where they do not close without the rotation, and the rotation is not listed."""
    boosts = np.zeros((2, 3, 3))
    for k in (0, 1):
        boosts[k, 0, k + 1], boosts[k, k + 1, 0] = 1 / c**2, 1
    report = check_group(MatrixGroup("SO(2,1)", lie_algebra=boosts))
    assert not report.passed and len(report.failures) == 1
    assert report.failures[0].name == "Lie algebra" and "Write the generators in full precision" in str(report)
    assert words(report).count("leave their span by little") == 2  # where it is met, and at the end
    assert "Hom(V, V), Hom(V, V^2), Hom(V^2, V^2): fails as Lie algebra does" in words(report)


def test_the_callers_mistakes_raise():
    with pytest.raises(GroupError, match="form has shape"):
        check_group(groups.Th(), form=np.eye(4))
    with pytest.raises(GroupError, match="form has shape"):
        check_group(groups.Th(), form=np.eye(3)[None, None])
    with pytest.raises(GroupError, match="expected a MatrixGroup"):
        check_group("Th")
    with pytest.raises(ValueError, match="degree"):
        check_group(groups.Th(), degree=0)


# ---- representations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*GROUPS, "Ih", "SL2Z"])
def test_representations_pass(name):
    G = sl2z() if name == "SL2Z" else GROUPS[name][0]() if name in GROUPS else groups.get(name)
    rep = (2 * V + Scalar + V**2 + V.T)(G)
    report = check_rep(rep)
    assert report.passed and 0 <= report.error < 1e-10, str(report)
    assert str(rep) in str(report)
    assert_rep(GivenRep(G, rep.images.discrete, rep.images.lie))


@pytest.mark.parametrize("name", SOME)
def test_irreducible_representations_pass(name):
    for irrep in irreps(GROUPS[name][0]()):
        assert_rep(irrep)


TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def commutator(a, b):
    return a @ b - b @ a


def spinor_of_rotations():
    """Left multiplication by i/2, j/2, k/2 on the quaternions, with the structure constants of so(3)."""
    one, flip, swap = np.eye(2), np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
    spin = np.stack([np.kron(TURN, one), np.kron(flip, TURN), np.kron(swap, TURN)]) / 2
    so3 = groups.SO(3).lie_algebra
    same = np.sum(commutator(so3[0], so3[1]) * so3[2]) * np.sum(commutator(spin[0], spin[1]) * spin[2])
    return GivenRep(groups.SO(3), lie=np.sign(same) * spin, verify=False)


def wrong_images(G, **changed):
    images = {"discrete": G.discrete_generators.copy(), "lie": G.lie_algebra.copy()}
    for name, (i, m) in changed.items():
        images[name][i] = m
    return GivenRep(G, **images, verify=False)


LINES = {"products": "equal products", "brackets": "images of brackets", "logarithms": "exp(dρ(log g))"}
BAD = {
    "too high an order": (lambda: GivenRep(groups.C(4), [[[0.6, -0.8], [0.8, 0.6]]], verify=False), "products"),
    "mirrors at a wrong angle": (
        lambda: wrong_images(
            MatrixGroup("D4", [np.diag([1, -1]), [[0, 1], [1, 0]]]), discrete=(1, [[0.6, 0.8], [0.8, -0.6]])
        ),
        "products",
    ),
    "an infinite discrete group": (lambda: wrong_images(sl2z(), discrete=(0, [[1, 2], [0, 1]])), "products"),
    "wrong structure constants": (
        lambda: wrong_images(groups.SO(3), lie=(0, 2 * groups.SO(3).lie_algebra[0])),
        "brackets",
    ),
    "a mirror that does not conjugate": (
        lambda: wrong_images(groups.O(3), discrete=(0, np.diag([1.0, -1, 1]))),
        "brackets",
    ),
    "dependent generators": (
        lambda: GivenRep(MatrixGroup("SO2", lie_algebra=[TURN, 2 * TURN]), lie=[TURN, TURN], verify=False),
        "brackets",
    ),
    "a zero generator": (
        lambda: GivenRep(MatrixGroup("0", lie_algebra=[np.zeros((2, 2))]), lie=[TURN], verify=False),
        "brackets",
    ),
    "a spinor of rotations": (spinor_of_rotations, "logarithms"),
    "half a turn for a turn": (lambda: GivenRep(groups.SO(2), lie=[TURN / 2], verify=False), "logarithms"),
    "another component": (
        lambda: GivenRep(MatrixGroup("SO2", [-np.eye(2)], [TURN]), [np.eye(2)], [TURN], verify=False),
        "logarithms",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_images_that_are_no_representation_are_red(case):
    make, line = BAD[case]
    report = check_rep(make())
    assert LINES[line] in red(report), str(report)
    assert report.error > 1e-3


def test_what_only_the_logarithm_shows():
    for rep in (spinor_of_rotations(), GivenRep(groups.SO(2), lie=[TURN / 2], verify=False)):
        assert all("log" in c.name for c in check_rep(rep).failures)
    assert check_rep(GivenRep(groups.SU(2), lie=groups.SU(2).lie_algebra)).passed


def test_the_derivative_and_products_of_a_rep_of_matrices():
    class Doubled(VectorRep):
        def _drho(self, A):
            return 2 * A

    class Transposed(VectorRep):
        def _rho(self, g, batch):
            return np.swapaxes(super()._rho(g, batch), -1, -2)

    assert "dρ is the derivative of ρ" in red(check_rep(Doubled(groups.SO(2))))
    assert "ρ(gh) = ρ(g)ρ(h)" in red(check_rep(Transposed(groups.Th())))


def test_check_rep_wants_a_bound_rep():
    with pytest.raises(RepError, match="not bound"):
        check_rep(V)
    with pytest.raises(RepError, match="expected a Rep"):
        check_rep(np.eye(3))


# ---- layers -----------------------------------------------------------------------------------------------------


def layers(G):
    field, edge = (2 * Scalar + 2 * V)(G), (Scalar + V)(G)
    return [
        Linear(field, (Scalar + V)(G)),
        EMLP(field, field, hidden=3, layers=1),
        Gate(field),
        BatchNorm(field),
        BatchNorm(field).eval(),
        Bilinear(field, edge, field, width=2),
        Invariants(field),
        InvariantPool(field),
        ImplicitKernel((V + Scalar)(G), (2 * Scalar + 2 * V)(G), edge, width=2),
        PointConv(field, edge, width=2),
        PointConv(field, edge, edge, width=2, aggr="mean", contraction="kernel"),
    ]


@pytest.mark.parametrize("name", SOME)
def test_layers_pass(name):
    for layer in layers(GROUPS[name][0]()):
        report = check_equivariance(layer)
        assert report.passed, str(report)
        assert type(layer).__name__ in str(report)
        # a kernel of degree two does not see all of Th
        assert all("a larger group" in text for text in report.warnings) and (name == "Th" or not report.warnings)
        assert_equivariant_module(layer)


class Perturbed(nn.Module):
    """An equivariant matrix, and a little of another."""

    def __init__(self, G, size, nonlinear=False):
        super().__init__()
        self.rep_in = self.rep_out = V(G)
        self.weight = nn.Parameter(
            torch.eye(G.d, dtype=torch.float64) + size * torch.randn(G.d, G.d, dtype=torch.float64)
        )
        self.nonlinear = nonlinear

    def forward(self, x):
        y = x @ self.weight.T
        return y.relu() if self.nonlinear else y


def test_broken_layers_are_red():
    G = groups.Th()
    assert check_equivariance(Perturbed(G, 0)).passed
    report = check_equivariance(Perturbed(G, 1e-7))
    assert red(report) == "equivariant in float64"  # float32 cannot see it
    assert 1e-9 < report.error < 1e-6
    assert red(check_equivariance(Perturbed(G, 0, nonlinear=True))).count("equivariant") == 2
    assert check_equivariance(Perturbed(G, 1e-7), tol=1e-5).passed
    assert len(check_equivariance(Perturbed(G, 0), tol={torch.bfloat16: 5e-2}).checks) == 1


# ---- the basis in which a group is written ----------------------------------------------------------------------


def rewritten(G, basis):
    back = np.linalg.inv(basis)
    return MatrixGroup(G.name, basis @ G.discrete_generators @ back, basis @ G.lie_algebra @ back)


def crooked(G, kappa):
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((G.d, G.d)))[0] for _ in range(2))
    return rewritten(G, left @ np.diag(np.geomspace(1, kappa, G.d)) @ right)


@pytest.mark.parametrize("make", [groups.Th, lambda: groups.O(3), groups.Lorentz, lambda: groups.Sp(4)])
def test_units_cost_no_digits(make):
    G = make()
    G = rewritten(G, np.diag(np.geomspace(1, 3e5, G.d)))
    for rep in (V(G), V.T(G), (V**2)(G), (2 * Scalar + V)(G)):
        assert condition(rep) < 1.5
    for layer in layers(G):
        report = check_equivariance(layer)
        assert report.passed, str(report)
        assert [c.tol for c in report.checks] == [1e-10, 1e-5]


@pytest.mark.parametrize("make", [groups.Th, groups.Lorentz, lambda: groups.Sp(4), lambda: groups.SL(2)])
@pytest.mark.parametrize("kappa", [50.0, 1e3])
def test_a_crooked_basis_multiplies_the_tolerance(make, kappa):
    G = crooked(make(), kappa)
    found = condition(V(G))
    assert kappa / 4 < found < 2 * kappa
    assert condition((V * V.T + Scalar)(G)) == pytest.approx(found**2)
    assert condition(irreps(G, 1)[1]) == 1
    for layer in (PointConv((2 * Scalar + V)(G), (2 * Scalar + V)(G), edge_rep=V(G), width=2), Linear(V(G), V(G))):
        report = check_equivariance(layer)
        assert report.passed, str(report)
        assert report.checks[1].tol == pytest.approx(found * 1e-5) and "of condition" in str(report)


@pytest.mark.parametrize("make", [groups.Th, groups.Lorentz, lambda: groups.Sp(4), lambda: groups.SL(2)])
@pytest.mark.parametrize("kappa", [50.0, 1e3])
def test_a_crooked_basis_is_no_excuse(make, kappa):
    G = crooked(make(), kappa)
    off = {torch.float64: 100 * kappa * 1e-10, torch.float32: 0.2}
    for dtype, size in off.items():
        report = check_equivariance(Perturbed(G, size))
        assert str(dtype).removeprefix("torch.") in red(report), str(report)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: x.abs(), [torch.randn(4, G.d)], [V(G)], V(G))
    assert_equivariant(lambda x: 2 * x, [torch.randn(4, G.d)], [V(G)], V(G))


def test_no_basis_excuses_everything():
    G = crooked(groups.Th(), 1e4)
    assert tolerance(torch.float32, [(V**3)(G)]) == tolerance(torch.float64, [(V**3)(G)]) == 1e-2
    assert tolerance(torch.bfloat16, [V(G)]) == 5e-2
    report = check_equivariance(Linear((V**2)(G), (V**2)(G)))
    assert "float32" in red(report) and "float32 has too few digits for a basis of condition" in str(report)


def test_the_representations_of_a_crooked_basis():
    G = crooked(groups.O(3), 1e3)
    report = check_rep((V**2)(G))
    assert report.passed, str(report)
    lie = G.lie_algebra.copy()
    lie[0] *= 1.001
    assert "brackets" in red(check_rep(GivenRep(G, G.discrete_generators, lie, verify=False)))


@pytest.mark.parametrize("make", [groups.Th, groups.Lorentz, lambda: groups.SE(2), lambda: groups.GL(2)])
@pytest.mark.parametrize("kappa", [50.0, 1e3])
def test_groups_in_a_crooked_basis_pass(make, kappa):
    report = check_group(crooked(make(), kappa))
    assert report.passed, str(report)


def test_powers_of_a_generator_add_up_its_rounding():
    report = check_group(groups.C(999_999))
    assert report.passed, str(report)
    assert tolerance(torch.float64, [V(groups.C(999_999))]) < 1e-9
    assert tolerance(torch.float64, [V(groups.C(99_999))]) == 1e-10


# ---- where it is violated ---------------------------------------------------------------------------------------


def test_the_report_says_where():
    G = groups.O(3)
    x = torch.randn(5, 6)

    def cross(v):
        return torch.cat([v, torch.linalg.cross(v[:, :3], v[:, 3:])], 1)

    report = check_equivariance(cross, [x], [(2 * V)(G)], (2 * V + V)(G))
    text = str(report)
    assert not report.passed and "violated at discrete_generators[0]" in text and "FAILED" in text
    assert check_equivariance(cross, [x], [(2 * V)(groups.SO(3))], (2 * V + V)(groups.SO(3))).passed
    half_right = check_equivariance(
        lambda s, v: torch.cat([s, v.abs()], 1), [x[:, :1], x[:, :3]], [Scalar(G), V(G)], (Scalar + V)(G)
    )
    assert "output term V" in str(half_right)


def test_a_transposed_kernel_is_red():
    G = groups.Lorentz()
    kernel = ImplicitKernel((Scalar + V)(G), (Scalar + V)(G), width=2)
    points, maps = torch.randn(9, 4), kernel.rep_in >> kernel.rep_out
    assert_equivariant(lambda v: kernel(v).flatten(1), [points], [V(G)], maps)
    with pytest.raises(AssertionError, match="FAILED"):
        assert_equivariant(lambda v: kernel(v).transpose(1, 2).flatten(1), [points], [V(G)], maps)


def test_modules_describe_themselves():
    class Cloud(nn.Module):
        def __init__(self, G):
            super().__init__()
            self.conv = PointConv(Scalar(G), V(G), width=2)

        def forward(self, x, pos):
            return self.conv(x, pos, knn_graph(pos.detach(), 3))

        def equivariance_example(self, generator):
            G = self.conv.rep_in.group
            args = torch.randn(8, 1, generator=generator), torch.randn(8, G.d, generator=generator)
            return args, (Scalar(G), V(G)), V(G)

    G, nothing = groups.O(3), groups.Trivial(3)
    model = Cloud(G)
    report = check_equivariance(model)
    assert report.passed and report.title.startswith("Cloud"), str(report)
    args = model.equivariance_example(None)[0]
    assert not check_equivariance(model, args, (Scalar(G), None), V(G)).passed
    with pytest.raises(TypeError, match="equivariance_example"):
        check_equivariance(nn.Linear(3, 3))
    assert check_equivariance(nn.Linear(3, 3), reps_in=[V(nothing)], rep_out=V(nothing)).passed


# ---- functions of graphs ----------------------------------------------------------------------------------------


def graph_function(conv, graph):
    return lambda x, pos: conv(x, pos, graph(pos))


def knn_in_max_norm(pos):
    distance = (pos[:, None] - pos[None]).abs().amax(2).fill_diagonal_(np.inf)
    source = distance.topk(3, largest=False).indices
    return torch.stack([source.reshape(-1), torch.arange(len(pos)).repeat_interleave(3)])


def radius_in_projection(pos):
    near = torch.cdist(pos[:, :2], pos[:, :2]) < 0.8
    return near.nonzero().T


def test_a_graph_that_turns_with_the_frame_is_red():
    G = groups.O(3)
    x, pos = torch.randn(20, 2, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    conv = PointConv((2 * Scalar)(G), (Scalar + V)(G), width=2).double()
    reps = [(2 * Scalar)(G), V(G)]
    assert_equivariant(graph_function(conv, lambda p: knn_graph(p, 3)), [x, pos], reps, conv.rep_out)
    for graph in (knn_in_max_norm, radius_in_projection):
        assert equivariance_error(graph_function(conv, graph), [x, pos], reps, conv.rep_out) > 1e-3
        assert equivariance_error(lambda p, graph=graph: graph(p), [pos], [V(G)], None) > 0
    assert equivariance_error(lambda p: knn_graph(p, 3), [pos], [V(G)], None) == 0
    assert equivariance_error(radius_in_projection, [pos], [V(G)], None) == np.inf


def test_forgotten_edge_attributes_are_red():
    G = groups.O(3)
    conv = PointConv(Scalar(G), V(G), edge_rep=V(G), width=2)
    args = [torch.randn(6, 1), torch.randn(6, 3), torch.randint(0, 6, (2, 15)), torch.randn(15, 3)]
    assert check_equivariance(conv, args, [Scalar(G), V(G), None, V(G)], V(G)).passed
    report = check_equivariance(conv, args, [Scalar(G), V(G), None, None], V(G))
    assert not report.passed and report.error > 1e-3
    assert "it passes when argument 3 is moved as V" in str(report)
    report = check_equivariance(conv, args, [Scalar(G), V(G), None, V(G)], Scalar(G) + 2 * Scalar(G))
    assert not report.passed


def test_pairs_of_source_and_target():
    G = groups.O(3)
    conv = PointConv((Scalar + V)(G), V(G), width=2)
    x, pos = (torch.randn(5, 4), torch.randn(3, 4)), (torch.randn(5, 3), torch.randn(3, 3))
    edges = torch.stack([torch.randint(0, 5, (9,)), torch.randint(0, 3, (9,))])
    for rep in ((Scalar + V)(G), ((Scalar + V)(G), (Scalar + V)(G))):
        assert_equivariant(conv, [x, pos, edges], [rep, V(G), None], V(G))
    assert equivariance_error(conv, [x, pos, edges], [(Scalar + V)(G), (V(G), None), None], V(G)) > 1e-3
    with pytest.raises(RepError, match="tuple of 2"):
        equivariance_error(conv, [x, pos, edges], [(Scalar + V)(G), (V(G),), None], V(G))


# ---- equivariance_error -----------------------------------------------------------------------------------------


def test_outputs_of_every_kind():
    G = groups.Lorentz()
    eta = torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)
    x = torch.randn(7, 4, dtype=torch.float64)

    def good(v):
        return (v * eta * v).sum(1), 2 * v, v * eta

    assert equivariance_error(good, [x], [V(G)], (None, V(G), V.T(G))) < 1e-12
    assert equivariance_error(good, [x], [V(G)], (None, V(G), V(G))) > 1e-3
    assert equivariance_error(lambda v: v.norm(dim=1), [x], [V(G)], None) > 1e-3
    assert equivariance_error(lambda v: torch.zeros_like(v), [x], [V(G)], V(G)) == 0
    assert equivariance_error(lambda v: v[:0], [x], [V(G)], V(G)) == 0
    assert equivariance_error(lambda v: v / 0, [x], [V(G)], V(G)) == np.inf
    assert equivariance_error(lambda v: v[v[:, 1] > 0], [x], [V(G)], V(G)) == np.inf
    assert (
        equivariance_error(lambda v: 1e-30 * v.relu(), [x], [V(G)], V(G)) > 1e-3
    )  # small is not the same as zero


def test_every_discrete_generator_is_tried():
    # a function equivariant under all but one of many generators, which few sampled elements need contain
    G = MatrixGroup("signs", [np.diag(np.where(np.arange(6) == i, -1.0, 1.0)) for i in range(6)])
    for i in range(6):
        bump = torch.eye(6)[i]
        assert equivariance_error(lambda v, b=bump: v + b, [torch.randn(2, 6)], [V(G)], V(G), n=1) > 1e-3


def test_dtypes_and_tolerances():
    G = groups.O(3)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(6, 3).to(dtype)
        assert_equivariant(lambda v: v * (v * v).sum(1, keepdim=True), [x], [V(G)], V(G))
        with pytest.raises(AssertionError, match=str(dtype).removeprefix("torch.")):
            assert_equivariant(lambda v: v.relu(), [x], [V(G)], V(G))
    error = equivariance_error(lambda v: v * v.norm(dim=1, keepdim=True), [torch.randn(6, 3)], [V(G)], V(G))
    assert 0 < error < 1e-6


def test_the_result_is_the_same_every_time():
    G = groups.O(3)
    x = torch.randn(6, 3)
    errors = {equivariance_error(torch.sin, [x], [V(G)], V(G)) for _ in range(3)}
    assert len(errors) == 1
    for generator in (5, np.random.default_rng(6), torch.Generator().manual_seed(7)):
        other = equivariance_error(torch.sin, [x], [V(G)], V(G), generator=generator)
        assert other > 1e-3 and other not in errors


@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, lambda m: m.forward, lambda m: lambda x: 2 * m(x)],
    ids=["module", "method", "closure"],
)
def test_nothing_is_left_behind(wrap):
    G = groups.O(3)
    field = (2 * Scalar + V)(G)
    model = nn.Sequential(BatchNorm(field), nn.Sequential(BatchNorm(field)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(6, 5)
    random, hooks = torch.get_rng_state(), len(nn.modules.module._global_forward_pre_hooks)
    assert equivariance_error(wrap(model), [x], [field], field) < 1e-5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and torch.equal(random, torch.get_rng_state())
    assert len(nn.modules.module._global_forward_pre_hooks) == hooks
    check_equivariance(model, [x], [field], field)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_both_sides_see_the_same_dropout():
    G = groups.O(3)
    x = torch.randn(50, 3)
    drop = nn.Dropout(0.5)
    assert equivariance_error(lambda v: v * drop(torch.ones(len(v), 1)), [x], [V(G)], V(G)) < 1e-6
    assert equivariance_error(drop, [x], [V(G)], V(G)) > 1e-3


def test_forces_are_gradients():
    G = groups.O(3)

    def forces(pos):
        return torch.autograd.grad(torch.pdist(pos).square().sum(), pos)[0]

    assert equivariance_error(forces, [torch.randn(5, 3, requires_grad=True)], [V(G)], V(G)) < 1e-6
    seen = []
    equivariance_error(lambda v: seen.append(torch.is_grad_enabled()) or v, [torch.randn(2, 3)], [V(G)], V(G))
    assert not any(seen)


def test_wrong_arguments_raise():
    G, x = groups.O(3), torch.randn(6, 3)
    for args, reps_in, rep_out, what in (
        ([x], [V], V(G), "not bound"),
        ([x], [V(G), None], V(G), "each of the 1 arguments"),
        ([x], V(G), V(G), "reps_in"),
        ([x], [None], None, "no representation"),
        ([x], [V(groups.Th())], V(G), "one group"),
        ([x[:, :2]], [V(G)], V(G), "cannot carry"),
        ([x], [V(G)], (V(G), V(G)), "1 tensors"),
        ([x], [V(G)], (V**2)(G), "cannot carry"),
        ([x], ["V"], V(G), "expected a Rep"),
    ):
        with pytest.raises(RepError, match=what):
            equivariance_error(lambda v: v, args, reps_in, rep_out)
    with pytest.raises(TypeError, match="floating"):
        equivariance_error(lambda v: v, [x.long()], [V(G)], V(G))
    with pytest.raises(TypeError, match="real tensor"):
        equivariance_error(lambda v: v.numpy(), [x], [V(G)], V(G))
    with pytest.raises(ValueError, match="at least 1"):
        equivariance_error(lambda v: v, [x], [V(G)], V(G), n=0)


# ---- assertions -------------------------------------------------------------------------------------------------


def test_assertions_carry_the_report():
    G = groups.Th()
    assert_group(G, order=24, degree=1)
    with pytest.raises(AssertionError, match="FAIL .* order 12"):
        assert_group(G, order=12, degree=1)
    with pytest.raises(AssertionError, match="FAIL .* equal products"):
        assert_rep(BAD["too high an order"][0]())
    with pytest.raises(AssertionError, match="worst at"):
        assert_equivariant_module(Perturbed(G, 0.1))
    with pytest.warns(UserWarning, match="vanishes"):
        assert_equivariant(lambda v: 0 * v, [torch.randn(2, 3)], [V(G)], V(G))


def test_a_group_in_physical_units_passes():
    c = 299_792_458.0
    boosts = [[[0, 1 / c, 0], [c, 0, 0], [0, 0, 0]], [[0, 0, 1 / c], [0, 0, 0], [c, 0, 0]]]
    group = MatrixGroup("Lorentz in metres and seconds", lie_algebra=boosts)
    report = check_group(group, dimension=3, form=np.diag([c**2, -1, -1]))
    assert report.passed, str(report)


def test_a_function_seen_in_single_precision_alone_has_an_error():
    g = groups.SO(3)
    report = check_equivariance(lambda x: 2 * x, [torch.randn(3, 3)], [V(g)], V(g))
    assert report.passed and report.error <= 1e-5


def test_a_long_report_says_at_its_end_what_failed():
    report = check_group(groups.SO(3), order=6)
    last = " ".join(str(report).splitlines()[-1].split())
    assert last == "FAIL wrong expected order 6 (found an infinite group)"


def test_a_line_about_a_count_reads_as_a_sentence():
    report = check_group(groups.D(4), order=12, quick=True)
    assert " ".join(str(report.failures[0]).split()) == "FAIL off by 4 expected order 12 (found 8)"
    passed = check_group(groups.D(4), order=8, quick=True)
    assert "ok   exact              expected order 8 (found 8)" in str(passed)


@pytest.mark.slow
def test_counts_beyond_double_precision_are_not_asked_for():
    turns = MatrixGroup.from_permutations("turns", [[*range(1, 100), 0]])
    report = check_group(turns, order=100, quick=True)
    assert report.passed and "invariant polynomials of V" in str(report)
