"""Equivariant linear maps as nullspaces: X with ρ_b(h) X = X ρ_a(h) and dρ_b(A) X = X dρ_a(A) on every generator.

Two engines with one interface: ``emlp`` hands the constraint to EMLP's dense nullspace solver (Finzi, Welling,
Wilson, 2021, section 5), ``numpy`` is the independent oracle, and what runs where emlp is not installed. EMLP is
given only what it answers exactly: float64, normalised generators, the constraint reduced to a square triangle and
padded to few sizes so that jax compiles few programs. The rank is decided here, with a clear gap or not at all, and
every answer is verified on group elements that were not in the constraint. Problems beyond ``DENSE`` unknowns
are solved by projecting random matrices on the nullspace with conjugate gradients, which never forms the constraint.

This is the only module that imports emlp or jax.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from functools import cache, wraps

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController

from ..errors import SolverError
from ..images import Images
from .store import default_store, problem_key

__all__ = ["canonical", "intertwiners", "one_thread", "project", "residual"]

log = logging.getLogger("emkernel")
DENSE = 1024
ZERO, NONZERO = 1e-9, 1e-4
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
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


def residual(a: Images, b: Images, X: np.ndarray) -> float:
    """Largest violation of the intertwining relation by X (..., n_b, n_a), generators and held-out elements alike."""
    worst = 0.0
    for ma, mb in ((a.discrete, b.discrete), (a.lie, b.lie), (a.held_out, b.held_out)):
        for p, q in zip(ma, mb):
            scale = max(1.0, np.abs(p).max(), np.abs(q).max())
            worst = max(worst, np.abs(q @ X - X @ p).max(initial=0) / scale)
    return worst


@one_thread
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
    key = problem_key("intertwiners", a.digest, b.digest)
    store = default_store()
    if engine == "auto":
        kept = store.get(key)
        if kept is not None and _verified(a, b, kept["basis"]):
            return kept["basis"]
        store.discard(key)
    unknowns = a.size * b.size
    if not len(a.discrete) and not len(a.lie):
        basis = np.eye(unknowns).reshape(unknowns, b.size, a.size)
    elif unknowns > DENSE:
        basis = _by_projection(a, b)
    else:
        basis = _dense(a, b, engine)
    if not _verified(a, b, basis):
        raise SolverError(
            f"the solution of Hom({a.size}, {b.size}) is violated by "
            f"{residual(a, b, basis):.1e} on group elements that "
            f"were not in the constraint. Likely cause: the images are not a representation of the group."
        )
    if engine == "auto":
        store.put(key, {"basis": basis})
    return basis


def _verified(a: Images, b: Images, basis: np.ndarray) -> bool:
    if basis.ndim != 3 or basis.shape[1:] != (b.size, a.size) or not np.isfinite(basis).all():
        return False
    flat = basis.reshape(len(basis), a.size * b.size)
    return np.abs(flat @ flat.T - np.eye(len(flat))).max(initial=0) < 1e-9 and residual(a, b, basis) < 1e-8


def _dense(a: Images, b: Images, engine: str) -> np.ndarray:
    n = a.size * b.size
    blocks = []
    for p, q in [*zip(a.discrete, b.discrete), *zip(a.lie, b.lie)]:
        block = np.kron(q, np.eye(a.size)) - np.kron(np.eye(b.size), p.T)
        blocks.append(block / max(1.0, np.linalg.norm(p, 2), np.linalg.norm(q, 2)))
    triangle = np.zeros((n, n))
    for block in blocks:
        triangle = np.linalg.qr(np.concatenate([triangle, block]), mode="r")
    s = np.linalg.svd(triangle, compute_uv=False)
    rank = int((s > NONZERO).sum())
    if rank < n and s[rank] > ZERO:
        raise SolverError(
            f"no clear gap in the singular values of Hom({a.size}, {b.size}): {s[rank - 1] if rank else np.inf:.1e} is "
            f"followed by {s[rank]:.1e}, where zeros should be below {ZERO:.0e}. Likely cause: generators with few "
            "digits, nearly the identity, or in a badly conditioned basis."
        )
    use_emlp = engine == "emlp" or (engine == "auto" and _emlp_available())
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
    """Orthogonal projection of X (n_b, n_a) on Hom(a, b), by conjugate gradients on C^T C.

    Raises:
        SolverError: the iteration does not reach a zero residual.
    """
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
