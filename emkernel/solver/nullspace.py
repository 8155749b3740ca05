"""Equivariant linear maps as nullspaces: X with ρ_b(h) X = X ρ_a(h) and dρ_b(A) X = X dρ_a(A) on every generator.

Two engines with one interface: ``emlp`` hands the constraint to EMLP's dense nullspace solver (Finzi, Welling,
Wilson, 2021, section 5), ``numpy`` is the independent oracle, and what runs where emlp is not installed. EMLP is
given only what it answers exactly: float64, normalised generators, the constraint reduced to a square triangle and
padded to few sizes so that jax compiles few programs. The rank is decided here, with a clear gap or not at all, and
every answer is verified on group elements that were not in the constraint. Beyond ``SMALL`` unknowns a reductive group
averages (:mod:`emkernel.solver.averaging`); for any other, beyond ``DENSE`` unknowns, random matrices are projected
on the nullspace with conjugate gradients, which never forms the constraint.

This is the only module that imports emlp or jax.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Callable
from functools import cache, partial, wraps

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController

from .._progress import working
from ..errors import SolverError
from ..images import Images, summed_error
from .averaging import fixed_tensors, projected
from .orbits import MOST_TUPLES, Seeded, are_seeds, invariant_tensors, is_one_orbit, seeds, tuples
from .store import default_store, problem_key

__all__ = ["canonical", "coupling_maps", "intertwiners", "one_thread", "project", "residual"]

log = logging.getLogger(__name__)
SMALL, DENSE = 256, 1024
LARGEST = 100_000  # numbers in a coupling beyond which permutation groups keep its seeds alone
ZERO, NONZERO = 1e-9, 1e-4
SURE = 1e-7  # the least that is not zero where the errors of generators are known
LARGE = 1e5  # norm of images beyond which a dense constraint is not trusted
_forked: list[bool] = []  # filled in a child process that inherited a running jax


def _after_fork() -> None:
    if "jax" in sys.modules:
        _forked.append(True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread(function):
    """Run with one BLAS thread: many small problems are faster so, and answers do not depend on the thread count."""

    @wraps(function)
    def limited(*args, **kwargs):
        try:
            with _controller().limit(limits=1, user_api="blas"):
                return function(*args, **kwargs)
        except np.linalg.LinAlgError as e:
            raise SolverError(
                f"numerical failure ({e}). Likely cause: generators of very different size, or in a badly conditioned "
                "basis; write the group in coordinates where its generators are of order 1."
            ) from e

    return limited


def residual(a: Images, b: Images, X: np.ndarray) -> float:
    """Largest violation of the intertwining relation by X (..., n_b, n_a), generators and held-out elements alike."""
    worst = 0.0
    for ma, mb in ((a.discrete, b.discrete), (a.lie, b.lie), (a.held_out, b.held_out)):
        for p, q in zip(ma, mb):
            scale = max(1.0, np.abs(p).max(), np.abs(q).max())
            worst = max(worst, np.abs(q @ X - X @ p).max(initial=0) / scale)
    return worst


def intertwiners(a: Images, b: Images, engine: str = "auto") -> np.ndarray:
    """Canonical orthonormal basis (r, n_b, n_a) of Hom(a, b).

    Args:
        a, b: images of the same normalised generators.
        engine: "emlp", "numpy", or "auto": emlp where it is installed and the problem is dense.

    Raises:
        SolverError: no clear gap in the singular values, or an answer that fails on held-out group elements.
    """
    if engine not in ("auto", "emlp", "numpy"):
        raise ValueError(f"engine must be 'auto', 'emlp' or 'numpy', got {engine!r}")
    if engine != "auto":
        return _intertwiners(a, b, engine)
    return _kept("intertwiners", (a, b), partial(_verified, a, b), lambda: _intertwiners(a, b, engine))


def coupling_maps(a: Images, b: Images, c: Images) -> np.ndarray | Seeded:
    """Canonical orthonormal basis (r, n_c, n_a, n_b) of Hom(a ⊗ b, c), without forming a ⊗ b where it is large, nor the
    basis where it is that of a group that permutes.

    Raises:
        SolverError: as of :func:`intertwiners`.
    """
    verified = partial(_verified_coupling, a, b, c, residual_of=_sampled_residual)
    if a.size * b.size * c.size > LARGEST and all(i.permuted for i in (a, b, c)):
        # of the three factors the one on fewest points comes first
        order = sorted((0, 1, 2), key=lambda i: (c, a, b)[i].permuted[0].shape[1])
        first, second, third = ((c, a, b)[i] for i in order)
        if is_one_orbit(first.permuted[0]):
            return _seeded(first, second, third).transpose(0, *(1 + order.index(i) for i in range(3)))
    return _kept("couplings", (a, b, c), verified, lambda: _couplings(a, b, c))


@one_thread
def _seeded(first: Images, second: Images, third: Images) -> Seeded:
    """Orthonormal invariant functions (r, n_1, n_2, n_3), of which the store keeps the seeds alone."""
    key, store = problem_key("seeds", first.digest, second.digest, third.digest), default_store()
    permuted = first.permuted, second.permuted, third.permuted
    kept = store.get(key)
    if kept is not None:
        seed = kept.get("seeds", np.zeros(0))
        if seed.ndim == 3 and seed.shape[1:] == (second.size, third.size) and are_seeds(seed, *permuted):
            return Seeded(seed, first.permuted, second.discrete, third.discrete)
        store.discard(key)
    # the functions of such seeds are orthonormal
    seed = np.ascontiguousarray(_canonical_rows(seeds(*permuted)) / np.sqrt(first.permuted[0].shape[1]))
    functions = Seeded(seed, first.permuted, second.discrete, third.discrete)
    if not _verified_coupling(second, third, first, np.asarray(functions), _sampled_residual):
        raise SolverError(
            f"invariant functions of {first.size}, {second.size} and {third.size} dimensions, from the orbits of the "
            "points that are permuted, are not invariant. Likely cause: images that are not a representation."
        )
    store.put(key, {"seeds": seed})
    return functions


def _kept(kind: str, images: tuple[Images, ...], verified: Callable, solve: Callable) -> np.ndarray:
    """The basis under this problem in the store if it can be verified, else solved and stored."""
    key, store = problem_key(kind, *(i.digest for i in images)), default_store()
    kept = store.get(key)
    if kept is not None:
        if "basis" in kept and verified(kept["basis"]):
            return kept["basis"]
        store.discard(key)
    with working(f"solving {kind} of dimensions {', '.join(str(i.size) for i in images)}"):
        solved = solve()
    # what is read later is what is used now, to the last bit
    return store.put(key, {"basis": solved})["basis"]


@one_thread
def _intertwiners(a: Images, b: Images, engine: str) -> np.ndarray:
    unknowns = a.size * b.size
    if not len(a.discrete) and not len(a.lie):
        basis = np.eye(unknowns).reshape(unknowns, b.size, a.size)
    elif engine == "auto" and unknowns > SMALL and a.probes and b.probes:
        basis = _canonical_rows(fixed_tensors([*b.probes, *(p.conj() for p in a.probes)], summed_error(a, b)))
        basis = basis.reshape(-1, b.size, a.size)
    elif unknowns > DENSE:
        if error := summed_error(a, b):
            raise SolverError(
                f"Hom({a.size}, {b.size}) of a group that is not reductive is too large to tell zero from the error "
                f"{error:.0e} that the digits of its generators leave. Write them in full precision, or pass "
                "trust_digits=True if they are meant as they stand."
            )
        basis = _by_projection(a, b)
    else:
        basis = _dense(a, b, engine)
    if not _verified(a, b, basis):
        raise SolverError(
            f"the solution of Hom({a.size}, {b.size}) is violated by {residual(a, b, basis):.1e} on group "
            "elements that were not in the constraint. Likely causes: images that are not a representation of the "
            "group, or rounding of a badly conditioned basis (choose other coordinates)."
        )
    return basis


@one_thread
def _couplings(a: Images, b: Images, c: Images) -> np.ndarray:
    shape = (c.size, a.size, b.size)
    if np.prod(shape) <= SMALL or not (a.probes and b.probes and c.probes):
        return _intertwiners(a.tensor(b), c, "auto").reshape(-1, *shape)
    permuted = [i.permuted for i in (c, a, b)]
    if (tuples(permuted) or MOST_TUPLES) < MOST_TUPLES:
        basis = invariant_tensors(permuted)
    else:
        basis = fixed_tensors([*c.probes, *(p.conj() for p in a.probes + b.probes)], summed_error(a, b, c))
    basis = _canonical_rows(basis.reshape(-1, *shape))
    if not _verified_coupling(a, b, c, basis, _coupling_residual):
        raise SolverError(
            f"the couplings {a.size} ⊗ {b.size} -> {c.size} are violated by {_coupling_residual(a, b, c, basis):.1e}. "
            "Likely causes: images that are not a representation of the group, or rounding of a badly conditioned "
            "basis (choose other coordinates)."
        )
    return basis


def _canonical_rows(basis: np.ndarray) -> np.ndarray:
    return canonical(basis.reshape(len(basis), int(np.prod(basis.shape[1:]))).T).T.reshape(basis.shape)


def _verified_coupling(a: Images, b: Images, c: Images, basis: np.ndarray, residual_of: Callable) -> bool:
    if basis.shape[1:] != (c.size, a.size, b.size) or not np.isfinite(basis).all():
        return False
    if not len(basis):
        return True
    flat = basis.reshape(len(basis), int(np.prod(basis.shape[1:])))
    orthonormal = np.abs(flat @ flat.T - np.eye(len(flat))).max(initial=0) < 1e-9
    return orthonormal and residual_of(a, b, c, basis) < 1e-8


def _coupling_residual(a: Images, b: Images, c: Images, C: np.ndarray) -> float:
    """Largest violation of c(g) C = C (a(g) ⊗ b(g)), on generators and held-out elements."""
    worst = 0.0
    for p, q, r in (*zip(a.discrete, b.discrete, c.discrete), *zip(a.held_out, b.held_out, c.held_out)):
        scale = max(1.0, np.abs(r).max(), np.abs(p).max() * np.abs(q).max())
        after = np.tensordot(r, C, (1, 1)).swapaxes(0, 1)
        worst = max(worst, np.abs(after - (p.T @ C @ q)).max(initial=0) / scale)
    for p, q, r in zip(a.lie, b.lie, c.lie):
        after = np.tensordot(r, C, (1, 1)).swapaxes(0, 1)
        worst = max(worst, np.abs(after - p.T @ C - C @ q).max(initial=0))
    return worst


def _sampled_residual(a: Images, b: Images, c: Images, C: np.ndarray) -> float:
    """Violation of c(g) C(x, y) = C(a(g) x, b(g) y) for one random x and y, by which an entry is checked on reading."""
    X, Y = a.sampled[0], b.sampled[1]
    many = 1 + len(c.elements)
    half = (C.reshape(-1, b.size) @ Y.T).reshape(-1, a.size, len(Y))
    group = (half[..., :many] * X[:many].T).sum(1).T.reshape(many, len(C), c.size)
    value = group[0]
    algebra = half[..., 0] @ X[many:].T + np.tensordot(half[..., many:], X[0], (1, 0))
    algebra = algebra.T.reshape(len(c.lie), len(C), c.size)
    size = np.maximum(np.abs(group[1:]).max((1, 2), initial=1), c.sizes)
    off = np.abs(group[1:] - value @ c.elements.transpose(0, 2, 1)).max((1, 2), initial=0) / size
    off_algebra = np.abs(algebra - value @ c.lie.transpose(0, 2, 1)).max((1, 2), initial=0)
    return float(max(off.max(initial=0), off_algebra.max(initial=0) / max(1.0, np.abs(half).max(initial=0))))


def _verified(a: Images, b: Images, basis: np.ndarray) -> bool:
    if basis.ndim != 3 or basis.shape[1:] != (b.size, a.size) or not np.isfinite(basis).all():
        return False
    if not len(basis):
        return True
    flat = basis.reshape(len(basis), a.size * b.size)
    return np.abs(flat @ flat.T - np.eye(len(flat))).max(initial=0) < 1e-9 and residual(a, b, basis) < 1e-8


def _generator(images: Images, i: int) -> str:
    many = len(images.discrete)
    return f"discrete_generators[{i}]" if i < many else f"lie_algebra[{i - many}]"


def _dense(a: Images, b: Images, engine: str) -> np.ndarray:
    n = a.size * b.size
    blocks = []
    for i, (p, q) in enumerate([*zip(a.discrete, b.discrete), *zip(a.lie, b.lie)]):
        block = np.kron(q, np.eye(a.size)) - np.kron(np.eye(b.size), p.T)
        size = max(1.0, np.linalg.norm(p, 2), np.linalg.norm(q, 2))
        if size > LARGE:
            raise SolverError(
                f"the image of {_generator(a, i)} has norm {size:.1e}, beside which 1 is not told from rounding; at "
                f"most {LARGE:.0e} is solved for. Write the group in coordinates where its generators are smaller."
            )
        blocks.append(block / size)
    triangle = np.zeros((n, n))
    for block in blocks:
        triangle = np.linalg.qr(np.concatenate([triangle, block]), mode="r")
    s = np.linalg.svd(triangle, compute_uv=False)
    error = summed_error(a, b)
    nonzero = NONZERO if error is None else max(SURE, 2 * np.sqrt(len(blocks)) * error)
    rank = int((s > nonzero).sum())
    if rank < n and s[rank] > ZERO:
        doubtful = np.linalg.svd(triangle)[2][rank]
        worst = int(np.argmax([np.linalg.norm(block @ doubtful) for block in blocks]))
        raise SolverError(
            f"no clear gap in the singular values of Hom({a.size}, {b.size}): "
            + (f"{s[rank - 1]:.1e} is followed by {s[rank]:.1e}" if rank else f"the largest is {s[0]:.1e}")
            + f", where zeros should be below {ZERO:.0e}, others above {nonzero:.0e}"
            + ("" if error is None else " by the digits of the generators")
            + ". A map is equivariant but for "
            f"{_generator(a, worst)}. Likely cause: generators with few digits (MatrixGroup.polished finds the finite "
            "group near them), nearly the identity, or in a badly conditioned basis (choose other coordinates)."
        )
    # emlp takes what is below 1e-5 for zero
    use_emlp = engine == "emlp" or (engine == "auto" and nonzero >= NONZERO and _emlp_available())
    space = _emlp_nullspace(triangle) if use_emlp else None
    if space is None:
        space = np.linalg.svd(triangle)[2][rank:].T
    if space.shape[1] != n - rank:
        raise SolverError(
            f"emlp finds {space.shape[1]} equivariant maps in Hom({a.size}, {b.size}) where the singular "
            f"values give {n - rank}"
        )
    return canonical(space).T.reshape(-1, b.size, a.size)


def canonical(Q: np.ndarray, tol: float = 1e-5) -> np.ndarray:
    """The orthonormal basis (n, r) of the span of Q's columns that does not depend on LAPACK's choices.

    Each vector is the projection on what is left of the space of the first coordinate axis that (within ``tol``)
    projects longest, so its sign and order are fixed.
    """
    Q, out = Q.copy(), []
    for _ in range(Q.shape[1]):
        n = (Q**2).sum(1)
        pivot = int(np.argmax(n > (1 - tol) * n.max()))
        u = Q[pivot] / np.sqrt(n[pivot])
        out.append(Q @ u)
        Q = Q - np.outer(out[-1], u)
    return np.stack(out, 1) if out else Q


# ---- projection, matrix free ------------------------------------------------------------------------------------


@one_thread
def project(a: Images, b: Images, X: np.ndarray) -> np.ndarray:
    """Orthogonal projection of X (n_b, n_a) on Hom(a, b), by conjugate gradients.

    Raises:
        SolverError: the iteration does not reach a zero residual.
    """
    if a.probes and b.probes:
        return projected(a.probes, b.probes, X)
    pairs = [
        (p, q, max(1.0, np.linalg.norm(p, 2), np.linalg.norm(q, 2)) ** -2)
        for p, q in [*zip(a.discrete, b.discrete), *zip(a.lie, b.lie)]
    ]

    def normal(Z):
        out = np.zeros_like(Z)
        for p, q, w in pairs:
            R = q @ Z - Z @ p
            out += w * (q.T @ R - R @ p.T)
        return out

    start = max(np.linalg.norm(X), 1e-300)
    for _ in range(4):
        r = -normal(X)
        direction, rs = r.copy(), (r * r).sum()
        for _ in range(3000):
            if np.sqrt(rs) <= 1e-15 * start:
                break
            Ld = normal(direction)
            curvature = (direction * Ld).sum()
            if curvature <= 0:
                break
            step = rs / curvature
            X = X + step * direction
            r = r - step * Ld
            new = (r * r).sum()
            direction = r + (new / rs) * direction
            rs = new
        if residual(a, b, X) <= 1e-12 * max(start / np.sqrt(X.size), 1e-300):
            break
    if residual(a, b, X) > 1e-8 * start:
        raise SolverError(
            f"projection on Hom({a.size}, {b.size}) stops at a residual of "
            f"{residual(a, b, X) / start:.1e}. Likely cause: "
            "generators nearly the identity, or in a badly conditioned basis."
        )
    return X


def _by_projection(a: Images, b: Images) -> np.ndarray:
    rng = np.random.default_rng(0)
    found = np.zeros((0, a.size * b.size))
    while len(found) < a.size * b.size:
        X = rng.standard_normal((b.size, a.size))
        flat = X.reshape(-1)
        X = (flat - found.T @ (found @ flat)).reshape(X.shape)
        X = project(a, b, X).reshape(-1)
        X = X - found.T @ (found @ X)
        if np.linalg.norm(X) < 1e-6:
            break
        found = np.concatenate([found, X[None] / np.linalg.norm(X)])
    return canonical(found.T).T.reshape(-1, b.size, a.size)


# ---- emlp -------------------------------------------------------------------------------------------------------


@cache
def _emlp_available() -> bool:
    from importlib.util import find_spec

    return find_spec("emlp") is not None and find_spec("jax") is not None


def _emlp_nullspace(triangle: np.ndarray) -> np.ndarray | None:
    """EMLP's orthonormal nullspace (n, r) of a square constraint, in float64 on the CPU; None where its singular value
    decomposition does not converge."""
    with working("importing emlp and jax"):
        enable_x64, orthogonal_complement = _emlp()
    n = len(triangle)
    padded = int(2 ** np.ceil(np.log2(max(n, 8))))
    # an identity block forces the padded coordinates to zero
    square = scipy.linalg.block_diag(triangle, np.eye(padded - n))
    for attempt in range(3):
        with enable_x64(True):
            Q = np.asarray(orthogonal_complement(square), dtype=np.float64)
        # no convergence shows as no rank at all; mixing the rows changes the iteration and not the nullspace
        if np.isfinite(Q).all() and Q.shape[1] <= n:
            return Q[:n]
        square = scipy.linalg.qr(np.random.default_rng(attempt).standard_normal(square.shape))[0] @ square
    log.debug("emlp does not converge on %d unknowns; numpy answers", n)
    return None


def _emlp():
    if _forked:
        raise SolverError(
            "emlp would be called in a forked process, where jax hangs. Solve before forking (build the layer in the "
            "parent, or call emkernel.irreps), or start workers with the 'spawn' method."
        )
    keep = os.environ.get("JAX_PLATFORMS")
    os.environ["JAX_PLATFORMS"] = "cpu"
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - importing jax and emlp draws from them
    try:
        from emlp.reps.representation import orthogonal_complement

        try:
            from jax import enable_x64
        except ImportError:  # jax before 0.8
            from jax.experimental import enable_x64
    except ImportError as e:
        raise SolverError(
            f"the engine 'emlp' cannot be imported ({e}); install emlp and six, or use engine='numpy'"
        ) from e
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if keep is None:
            del os.environ["JAX_PLATFORMS"]
        else:
            os.environ["JAX_PLATFORMS"] = keep
    return enable_x64, orthogonal_complement
