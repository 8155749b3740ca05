"""Independent answers: ranks and errors computed without the library's solver, from the raw generators."""

import os
import subprocess
import sys
import textwrap
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch

import emkernel

# ---- counts of equivariant maps ---------------------------------------------------------------------------------


def power_of_group(h, k):
    return reduce(np.kron, [h] * k, np.eye(1))


def power_of_algebra(a, k):
    """Σ_i 1 ⊗ ... ⊗ a ⊗ ... ⊗ 1 with k factors."""
    d = len(a)
    return sum(
        (np.kron(np.kron(np.eye(d**i), a), np.eye(d ** (k - 1 - i))) for i in range(k)),
        np.zeros((d**k, d**k)),
    )


def constraint(group, p, q):
    """The matrix C of C vec(W) = 0 for W in Hom(V^p, V^q), from the user's generators as they are."""
    rows = []
    for power, generators in (
        (power_of_group, group.discrete_generators),
        (power_of_algebra, group.lie_algebra),
    ):
        for m in generators:
            a, b = power(m, p), power(m, q)
            rows.append(np.kron(b, np.eye(len(a))) - np.kron(np.eye(len(b)), a.T))
    return np.concatenate(rows) if rows else np.zeros((1, group.d ** (p + q)))


def nullity(group, p, q):
    """dim Hom(V^p, V^q) by the singular values of the raw constraint."""
    c = constraint(group, p, q)
    s = np.linalg.svd(np.linalg.qr(c, mode="r") if len(c) > c.shape[1] else c, compute_uv=False)
    return c.shape[1] - int((s > 1e-9 * max(s[0], 1.0)).sum())


def closure(generators, d, limit=2000):
    """All products of the generators, by brute force; (order, d, d)."""
    found = [np.eye(d)]
    for g in found:
        for h in generators:
            product = g @ h
            if np.abs(np.stack(found) - product).max((1, 2)).min() > 1e-6:
                found.append(product)
                assert len(found) <= limit, "the generators do not close"
    return np.stack(found)


def spins(j, k):
    """{2l: multiplicity of spin l in the k-th tensor power of spin j}, j and l doubled, by adding angular momenta."""
    out = {0: 1}
    for _ in range(k):
        new = {}
        for l, m in out.items():
            for total in range(abs(l - j), l + j + 1, 2):
                new[total] = new.get(total, 0) + m
        out = new
    return out


def hom_of_spins(j, p, q):
    """Σ_l m_p(l) m_q(l): maps between tensor powers of spin j/2."""
    a, b = spins(j, p), spins(j, q)
    return sum(m * b.get(l, 0) for l, m in a.items())


# ---- checkpoints ------------------------------------------------------------------------------------------------

SETTINGS = ("aggr", "neighbours", "cutoff", "envelope")


def without_settings(module):
    """The state of a module that says nothing of how it was made, which a layer made otherwise takes."""
    return {name: w for name, w in module.state_dict().items() if name.split(".")[-1] not in SETTINGS}


# ---- equivariance -----------------------------------------------------------------------------------------------


def act(rep, g, x):
    """ρ(g) x in float64, on the last axis."""
    return x.double() @ torch.as_tensor(rep.rho(g)).T


def equivariance_error(
    function, reps_in, rep_out, group, *, rows=(7,), dtype=torch.float64, seed=0, elements=3
):
    """max |f(ρ_in x) - ρ_out f(x)| / max |ρ_out f(x)| over random features and group elements; a rep of None is kept.

    ``rows`` are the rows of each argument, the last one repeated; the group acts in float64.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = [*rows, *[rows[-1]] * (len(reps_in) - len(rows))]
    xs = [torch.randn(n, r.size, generator=rng, dtype=torch.float64) for n, r in zip(rows, reps_in)]
    worst = 0.0
    with torch.no_grad():
        y = function(*[x.to(dtype) for x in xs])
        assert y.dtype == dtype and bool(torch.isfinite(y).all())
        for g in group.sample(elements, rng):
            moved = function(*[act(r, g, x).to(dtype) for r, x in zip(reps_in, xs)]).double()
            wanted = act(rep_out, g, y)
            worst = max(worst, float((moved - wanted).abs().max() / wanted.abs().max()))
    return worst


def tolerance(dtype, condition=1.0):
    """Promised for exact layers; a skew basis of the group costs its condition number in single precision."""
    return 1e-10 if dtype == torch.float64 else 1e-5 * condition


# ---- other processes --------------------------------------------------------------------------------------------


def run(code, *arguments, expect=0, timeout=120, **environment):
    """Standard output of ``code`` in a fresh interpreter that finds this emkernel and these tests."""
    here = [str(Path(emkernel.__file__).parents[1]), str(Path(__file__).parent)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")]),
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=env,
        text=True,
        capture_output=True,
        timeout=timeout,
    )
    assert done.returncode == expect, (
        f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


def interpreter(*command, **environment):
    """What a Python of its own prints that has Triton and sees no GPU."""
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=root)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


# compile(kernel, types, constants, warps) for a GPU that need not be there, its capability on the command line
COMPILER = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def compile(kernel, types, constants, warps):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    constants = {(names.index(n),): v for n, v in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    done = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options={"num_warps": warps})
    assert "tf32" not in done.asm["ptx"] and done.asm["cubin"]
    print(kernel.fn.__name__, done.metadata.shared)
"""
