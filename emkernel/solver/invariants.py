"""Invariant and equivariant polynomials of a representation, as equivariant maps from its symmetric powers.

A polynomial map homogeneous of degree k is p(x) = C m(x), with m(x) the monomials of degree k weighted so that their
span is Sym^k orthonormally (the inner product of Bombieri): <x^a, x^b> = δ_ab a!/k!. It is equivariant iff
C Sym^k(g) = ρ_out(g) C on the generators, a nullspace for any group, reductive or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import torch

from .._progress import working
from ..errors import RepError, SolverError
from ..images import Images
from ..rep import Rep, Scalar, ScalarRep
from .coupling import common_group
from .irreps import Irrep, IrrepTable, irrep_table
from .nullspace import canonical, intertwiners, one_thread

__all__ = [
    "Monomials",
    "PolynomialMaps",
    "equivariant_polynomials",
    "invariant_coefficients",
    "invariant_polynomials",
    "monomials",
]

LARGEST = 3000  # monomials of one degree: matrices of this size are solved with


# ---- monomials --------------------------------------------------------------------------------------------------


class Monomials:
    """The monomials of degree k in n variables, in lexicographic order, each a parent of degree k-1 times a variable.

    Attributes:
        exponents: (M, n).
        parent, variable: (M,) x^a = x^parent · x_variable.
        child: (M_{k-1}, n) the index of x^b · x_i.
        weight: (M,) sqrt(k!/a!), by which monomials are multiplied to be orthonormal.
    """

    def __init__(self, n: int, k: int):
        words = list(combinations_with_replacement(range(n), k))
        index = {w: i for i, w in enumerate(words)}
        self.exponents = np.zeros((len(words), n), int)
        for i, w in enumerate(words):
            for v in w:
                self.exponents[i, v] += 1
        below = {w: i for i, w in enumerate(combinations_with_replacement(range(n), k - 1))} if k else {}
        child = [[index[tuple(sorted((*w, v)))] for v in range(n)] for w in below]
        self.parent = np.array([below[w[:-1]] for w in words] if k else [0])
        self.variable = np.array([w[-1] for w in words] if k else [0])
        self.child = np.array(child, int).reshape(-1, n)
        log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, k + 1)))])
        self.weight = np.exp((log[k] - log[self.exponents].sum(1)) / 2)

    def __len__(self):
        return len(self.exponents)


@cache
def monomials(n: int, k: int) -> Monomials:
    """The table of the monomials of degree k in n variables."""
    return Monomials(n, k)


def _values(x, n: int, degree: int) -> list:
    """The monomials of degree 0 to ``degree``, each (..., M_k), of a tensor or an array (..., n)."""
    out = [(torch if isinstance(x, torch.Tensor) else np).ones_like(x[..., :1])]
    for k in range(1, degree + 1):
        table = monomials(n, k)
        parent, variable = table.parent, table.variable
        if isinstance(x, torch.Tensor):
            parent, variable = (torch.as_tensor(i, device=x.device) for i in (parent, variable))
        out.append(out[-1][..., parent] * x[..., variable])
    return out


def _product(table: Monomials, P: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """(..., M, M) with rows m_a = P[parent] · Q[variable], for P acting on degree k-1 and Q on x."""
    k = table.exponents[0].sum()
    rows_p = P[..., table.parent, :]
    rows_q = Q[..., table.variable, :]
    own = np.sqrt(k / table.exponents[np.arange(len(table)), table.variable])
    out = np.zeros((*P.shape[:-2], len(table), len(table)), np.result_type(P, Q))
    for i in range(Q.shape[-1]):
        at = table.child[:, i]
        weight = np.sqrt(table.exponents[at, i] / k)
        out[..., at] += own[:, None] * rows_p * weight * rows_q[..., i : i + 1]
    return out


def _powers(images: Images, degree: int):
    """Yield (k, Sym^k of the images) for k = 0 to ``degree``."""
    n = images.size
    one = np.eye(n)
    # several factors are those of a tensor product, whose symmetric powers have no factors
    elements = [images.discrete, images.held_out, *(images.probes if len(images.probes) == 1 else ())]
    parts = [np.ones((len(m), 1, 1), m.dtype) for m in elements]
    lie = np.zeros((len(images.lie), 1, 1))
    for k in range(degree + 1):
        if k:
            table, below = monomials(n, k), np.eye(comb(n + k - 2, k - 1))
            parts = [_product(table, p, m) for p, m in zip(parts, elements)]
            lie = _product(table, lie, np.broadcast_to(one, images.lie.shape)) + _product(
                table, np.broadcast_to(below, (len(lie), *below.shape)), images.lie
            )
        error = images.error and k * images.error
        find = partial(tuple, parts[2:])
        yield k, Images(parts[0], lie, parts[1], f"{images.digest}sym{k}", find, error=error)


# ---- coefficients -----------------------------------------------------------------------------------------------


@one_thread
def invariant_coefficients(images: Images, trivial: Irrep, degree: int) -> list[np.ndarray]:
    """Generators of the invariant polynomials of degree 1 to ``degree``: for each degree (r_k, M_k), of norm 1.

    Args:
        images: the representation.
        trivial: the trivial representation of the same group.
    """
    found = [intertwiners(power, trivial.normal)[:, 0] for _, power in _powers(images, degree)]
    return _new(found, images.size)[1:]


def _new(found: list[np.ndarray], n: int) -> list[np.ndarray]:
    """What is orthogonal to all products of invariants of lower degree, degree by degree."""
    count = 2 * max(len(c) for c in found) + 32
    points = np.random.default_rng(0).standard_normal((count, n))
    m = _values(points, n, len(found) - 1)
    values = [v * monomials(n, k).weight @ c.T for k, (v, c) in enumerate(zip(m, found))]
    generators, out = [np.zeros((count, 0))], [found[0]]
    for k in range(1, len(found)):
        made = [np.zeros((count, 0))]
        for j in range(1, k):
            made.append((generators[j][:, :, None] * values[k - j][:, None, :]).reshape(count, -1))
        made = np.concatenate(made, 1)
        fresh = found[k]
        if made.shape[1] and len(fresh):
            coefs = np.linalg.lstsq(values[k], made / np.linalg.norm(made, axis=0), rcond=None)[0].T
            _, s, vh = np.linalg.svd(coefs)
            size = s.max(initial=0)
            unclear = s[(s > 1e-10 * size) & (s < 1e-7 * size)]
            if len(unclear):
                raise SolverError(
                    f"no clear rank of the products of invariants of degree {k}: {unclear[0]:.1e}"
                )
            fresh = vh[int((s > 1e-7 * size).sum()) :] @ fresh
            fresh = canonical(fresh.T).T if len(fresh) else fresh
        generators.append(m[k] * monomials(n, k).weight @ fresh.T)
        out.append(fresh)
    return out


@dataclass(frozen=True, eq=False, repr=False)
class PolynomialMaps:
    """A basis of the equivariant polynomial maps rep_in -> rep_out, degree by degree.

    The map c of degree k is p(x)[o] = Σ_a coefficients[k][c, o, a] x^a, over the exponents a = ``exponents(k)``.

    Attributes:
        rep_in, rep_out: the representations.
        coefficients: for each degree k = 0, 1, ..., an array (counts[k], rep_out.size, M_k).

    Shapes:
        called on a tensor x (..., rep_in.size): (..., sum(counts), rep_out.size), degree after degree;
        (..., sum(counts)) where rep_out is ``Scalar``. Differentiable; in the dtype and on the device of x.

    Example:
        >>> squares = ek.invariant_polynomials(V(groups.O(3)), 2).of_degree(2)
        >>> bool(squares(torch.tensor([[1.0, 0, 0]])).allclose(squares(torch.tensor([[0, 0.6, 0.8]]))))
        True
    """

    rep_in: Rep
    rep_out: Rep
    coefficients: tuple[np.ndarray, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many independent maps there are of degree 0, 1, ...: the Molien series, for invariants of all degrees."""
        return tuple(len(c) for c in self.coefficients)

    def exponents(self, degree: int) -> np.ndarray:
        """(M, rep_in.size) the exponents of the monomials of a degree, in the order of the coefficients."""
        return monomials(self.rep_in.size, degree).exponents

    def of_degree(self, degree: int) -> PolynomialMaps:
        """The maps of one degree alone."""
        keep = [c if k == degree else c[:0] for k, c in enumerate(self.coefficients)]
        return PolynomialMaps(self.rep_in, self.rep_out, tuple(keep))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        n, out = self.rep_in.size, []
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim < 1 or x.shape[-1] != n:
            given = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise RepError(f"x is {given}, expected a floating tensor (..., {n}) for {self.rep_in}")
        for values, c in zip(_values(x, n, len(self.coefficients) - 1), self.coefficients):
            c = torch.as_tensor(c, dtype=x.dtype, device=x.device)
            out.append(torch.einsum("...a,coa->...co", values, c))
        out = torch.cat(out, -2)
        return out[..., 0] if isinstance(self.rep_out, ScalarRep) else out

    def __repr__(self) -> str:
        return f"PolynomialMaps({self.rep_in} -> {self.rep_out}, counts={self.counts})"


@one_thread
def equivariant_polynomials(rep_in: Rep, rep_out: Rep, degree: int) -> PolynomialMaps:
    """The polynomial maps p with p(ρ_in(g) x) = ρ_out(g) p(x), homogeneous of degree 0, 1, ..., ``degree``.

    Those of degree k are Hom(Sym^k rep_in, rep_out), for any group: completely reducible or not.

    Args:
        rep_in, rep_out: bound representations of one group.
        degree: highest degree, at least 0.

    Returns:
        :class:`PolynomialMaps`, callable on tensors; ``counts`` has their number for each degree. Within a degree the
        basis is canonical, and orthonormal for <x^a, x^b> = δ_ab a!/k!.

    Raises:
        RepError: unbound, of different groups, or without components.
        ValueError: degree < 0.
        SolverError: no answer that can be trusted, or more monomials than can be solved for.

    Example:
        >>> vector = V(groups.O(3))
        >>> p = ek.equivariant_polynomials(vector, vector, 3)  # x and |x|² x
        >>> p.counts, p(torch.randn(5, 3)).shape
        ((0, 1, 0, 1), torch.Size([5, 2, 3]))

    Source: Gatermann, Computer Algebra Methods for Equivariant Dynamical Systems (2000), chapter 2.
    """
    G = common_group(rep_in, rep_out)
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)) or degree < 0:
        raise ValueError(f"degree must be an integer >= 0, got {degree!r}")
    n = rep_in.size
    if not n or not rep_out.size:
        raise RepError("polynomials of or into the zero representation: it has no components")
    if comb(n + degree - 1, degree) > LARGEST:
        raise SolverError(
            f"{comb(n + degree - 1, degree)} monomials of degree {degree} in {n} variables, at most {LARGEST} can be "
            "solved for. Split rep_in into smaller representations, or lower the degree."
        )
    table = irrep_table(G)
    images, change = _in_pieces(table, rep_in)
    parts = table.decompose(rep_out).parts
    coefficients, sym = [], np.ones((1, 1))
    with working(f"polynomials of {G.name}") as say:
        for k, power in _powers(images, degree):
            say(f"polynomials of {G.name} of degree {k}, up to {degree}")
            sym = _product(monomials(n, k), sym, change) if k else sym
            found = [np.zeros((0, rep_out.size, len(sym)))]
            for irrep, _, back in parts:
                maps = intertwiners(power, irrep.normal) @ sym
                found.append(np.einsum("mod,rda->mroa", back, maps).reshape(-1, rep_out.size, len(sym)))
            space = _orthonormal(np.concatenate(found), k)
            coefficients.append(space * monomials(n, k).weight)
    return PolynomialMaps(rep_in, rep_out, tuple(coefficients))


def invariant_polynomials(rep: Rep, degree: int, *, generators: bool = False) -> PolynomialMaps:
    """The invariant polynomials, p(ρ(g) x) = p(x), homogeneous of degree 0, 1, ..., ``degree``.

    Args:
        rep: a bound representation.
        degree: highest degree, at least 0; degree 0 has the constant.
        generators: only those that are not sums of products of others of lower degree, each orthogonal to these: a
            minimal set of generators of the ring of invariants up to this degree.

    Returns:
        :class:`PolynomialMaps` into ``Scalar``: p(x) is (..., sum(p.counts)). ``p.counts`` begins the Molien series.

    Raises:
        RepError: not bound.
        SolverError: no answer that can be trusted, or more monomials than can be solved for.

    Example:
        >>> ek.invariant_polynomials(V(groups.Lorentz()), 4).counts
        (1, 0, 1, 0, 1)
        >>> ek.invariant_polynomials(V(groups.Lorentz()), 4, generators=True).counts
        (0, 0, 1, 0, 0)
    """
    if not isinstance(rep, Rep):
        raise RepError(f"rep must be a Rep, got {type(rep).__name__}")
    p = equivariant_polynomials(rep, Scalar(rep._require_bound()), degree)
    if not generators:
        return p
    weights = [monomials(rep.size, k).weight for k in range(degree + 1)]
    found = _new([c[:, 0] / w for c, w in zip(p.coefficients, weights)], rep.size)
    found[0] = found[0][:0]
    return PolynomialMaps(rep, p.rep_out, tuple((c * w)[:, None] for c, w in zip(found, weights)))


def _in_pieces(table: IrrepTable, rep: Rep) -> tuple[Images, np.ndarray]:
    """The images as a block diagonal of irreducibles, and the change of basis (n, n) to them."""
    blocks, rows, digest = [], [], "pieces"
    for irrep, to, _ in table.decompose(rep).parts:
        blocks += [irrep.normal] * len(to)
        rows.append(to.reshape(-1, rep.size))
        digest += f"+{len(to)}x{irrep.normal.digest}"

    def diagonal(matrices):
        out = np.zeros((len(matrices[0]), rep.size, rep.size), np.result_type(*matrices))
        at = 0
        for m in matrices:
            out[:, at : at + m.shape[-1], at : at + m.shape[-1]] = m
            at += m.shape[-1]
        return out

    def probes():
        found = [b.probes for b in blocks]
        return (diagonal([p[0] for p in found]),) if all(len(p) == 1 for p in found) else ()

    kinds = ([getattr(b, kind) for b in blocks] for kind in ("discrete", "lie", "held_out"))
    error = max((b.error for b in blocks if b.error is not None), default=None)
    images = Images(*map(diagonal, kinds), digest, probes, error=error)
    return images, np.concatenate(rows)


def _orthonormal(space: np.ndarray, degree: int) -> np.ndarray:
    if not len(space):
        return space
    flat = space.reshape(len(space), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    Q, R = np.linalg.qr(flat.T)
    small = np.abs(np.diag(R)).min()
    if small < 1e-10:
        raise SolverError(
            f"the polynomials of degree {degree} are independent only to {small:.1e} in the coordinates given. Likely "
            "cause: units of very different size; scale the coordinates."
        )
    return canonical(Q).T.reshape(space.shape)
