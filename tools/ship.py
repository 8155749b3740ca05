"""Solves what common layers of every group in the catalogue need, and writes the file that comes with the package.

    python tools/ship.py

Everything is built twice: cold, and again from the solutions of the first time, which shows which of them building
reads; only those are kept. The same solver on the same machine writes the same bytes. Run it whenever the solver, the
catalogue or the format of the store changes; tests/test_store.py fails until that is done.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

import emkernel as ek
from emkernel import MatrixGroup, Scalar, V
from emkernel.models import MoleculeNet, ParticleNet, ShapeNet
from emkernel.solver import irreps as tables
from emkernel.solver._shipped import ship
from emkernel.solver.store import SHIPPED, default_store, problem_key

LIMIT = 2_000_000  # bytes that a wheel can spare
CONTENTS = problem_key("contents of the shipped file")  # names and digests of the groups in it


def convolutions(G: MatrixGroup) -> None:
    """Scalars and vectors to the same, with and without edge attributes."""
    ek.nn.PointConv((2 * Scalar + V)(G), (8 * Scalar + 4 * V)(G))
    ek.nn.PointConv((2 * Scalar + V)(G), (2 * Scalar + V)(G), (2 * Scalar + V)(G))


def models(G: MatrixGroup) -> None:
    """The reference networks, with polynomials of degree 1 and 2."""
    for degree in (1, 2):
        ParticleNet(G, channels=1, degree=degree, layers=2)
        if G.d == 3 and G.is_compact:
            MoleculeNet(G, channels=1, degree=degree, layers=1)
            ShapeNet(G, 2, channels=(1, 1, 1), degree=degree)


def squares(G: MatrixGroup) -> None:
    """Tensors of rank 2, as fields and as targets."""
    rep = (Scalar + V + V**2)(G)
    ek.nn.PointConv(rep, rep)
    ek.equivariant_basis(V(G), (V**3)(G))


def irreducibles(G: MatrixGroup) -> None:
    """The irreducibles in the first tensor powers of V; groups that do not split have none."""
    with suppress(ek.SolverError):
        ek.irreps(G, 3 if G.d <= 3 else 2)


def report(G: MatrixGroup) -> None:
    """What ``emkernel check`` looks at."""
    ek.check_group(G)


# what is built, and the largest dimension of V for which it is: of groups that split, and of others, whose solutions
# are dense
RECIPES: dict[Callable[[MatrixGroup], None], tuple[int, int]] = {
    convolutions: (6, 4), models: (4, 4), squares: (4, 2), irreducibles: (4, 0), report: (4, 2),
}  # fmt: skip


def applies(recipe: Callable[[MatrixGroup], None], G: MatrixGroup) -> bool:
    """Whether what the recipe needs of this group ships."""
    whole = not tables.irrep_table(G).coordinates.completely_reducible
    return G.d <= RECIPES[recipe][whole]


def build(G: MatrixGroup) -> None:
    """Every recipe that applies, each as a process would that builds nothing else."""
    for recipe in RECIPES:
        if applies(recipe, G):
            tables._tables.clear()
            recipe(G)


def solve(path: Path, names: list[str]) -> None:
    """Build for these groups and write what the store was asked for, a block for each group."""
    store, blocks, met, digests = default_store(), [], set(), []
    for name in names:
        start, G = time.perf_counter(), ek.groups.get(name)
        build(G)
        digests.append(G.digest)
        blocks.append({key: arrays for key, arrays in store.items() if key not in met})
        met |= set(blocks[-1])
        print(f"{name:10} {len(blocks[-1]):5} entries {time.perf_counter() - start:7.2f} s", flush=True)
    ship(path, [{CONTENTS: {"names": np.array(names), "digests": np.array(digests)}}, *blocks])
    print(f"{len(met)} entries, {path.stat().st_size:,} bytes")


def main() -> None:
    """Solve in one process, read in a second one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the file to write")
    parser.add_argument("--here", action="store_true", help="solve in this process, once, with the store as it is")
    parser.add_argument("names", nargs="*", help="groups, all of the catalogue unless given")
    args = parser.parse_args()
    names = args.names or sorted(ek.groups.catalogue())
    if args.here:
        return solve(args.out, names)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "solutions.part"
        environment = os.environ | {"EMKERNEL_STORE": folder, "EMKERNEL_SHIPPED": "0"}
        for _ in ("cold", "warm"):
            subprocess.run([sys.executable, __file__, "--here", "--out", part, *names], env=environment, check=True)
        if part.stat().st_size > LIMIT:
            raise SystemExit(f"{part.stat().st_size:,} bytes are more than the {LIMIT:,} that the package can spare")
        args.out.write_bytes(part.read_bytes())


if __name__ == "__main__":
    main()
