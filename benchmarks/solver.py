"""Splitting high tensor powers and solving couplings, cold, from the store, and by emlp alone.

For each group: V^⊗k is split into irreducibles and an equivariant linear layer V^⊗k -> V^⊗k built; then all couplings
a ⊗ b -> c of the first ten irreducibles met are solved, those of more than a million numbers last. Cold is an empty
store, warm the same again from the disk, each in a fresh process, warm the best of three; the import of emlp, which
only a cold process needs, is counted and shown apart. The reference is emlp's own basis of the same equivariant maps
V^⊗k -> V^⊗k, in a process that is stopped after --limit seconds.

    python benchmarks/solver.py [--limit 120] [--cpu] [O3 Octa Lorentz S20]

On a busy machine --cpu counts processor time instead, that of all threads together.
"""

import argparse
import os
import subprocess
import sys
import tempfile

CASES = {
    "O3": ("O(3)", 6, "O(3)"),
    "Octa": ("Octa", 6, "Cube()"),
    "Lorentz": ("Lorentz", 4, "O13()"),
    "S20": ("S(20)", 2, "S(20)"),
}
OURS = """
import time
import torch, emkernel as ek
from emkernel.solver.coupling import couplings
from emkernel.solver.irreps import irrep_table
imported = 0.0
if {cold}:
    start = time.perf_counter()
    import emlp.reps
    imported = time.perf_counter() - start
G = ek.groups.get("{name}")
clock = time.{clock}
start = clock()
table = irrep_table(G)
rep = (ek.V**{power})(G)
found = table.decompose(rep).multiplicities
times = [clock() - start]
start = clock()
layer = ek.nn.Linear(rep, rep)
times.append(clock() - start)
ten = table.irreps[:10]
number = []
for large in (False, True):
    start = clock()
    number.append(sum(len(couplings(table, a, b, c)) for a in ten for b in ten for c in ten
                      if (a.size * b.size * c.size > {largest}) == large))
    times.append(clock() - start)
print(imported, *times, len(ten), *number, sum(m * m for m in found.values()))
"""
EMLP = """
import resource, time
resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30,) * 2)
from emlp.groups import *
from emlp.reps import V
start = time.perf_counter()
G = {group}
basis = (V**{power} >> V**{power})(G).equivariant_basis()
print(time.perf_counter() - start, basis.shape[1])
"""
LARGEST = 1_000_000  # numbers in one coupling


def run(code: str, limit: float, **environment) -> list[str]:
    """Numbers that the code prints, or one line that says how it ended."""
    env = os.environ | environment
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=limit, env=env)
    except subprocess.TimeoutExpired:
        return [f"stopped after {limit:.0f} s"]
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return [f"fails: {said[-1][:80]}"]
    return done.stdout.split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME")
    parser.add_argument("--limit", type=float, default=120, help="seconds for emlp")
    parser.add_argument("--cpu", action="store_true", help="processor time of ours")
    args = parser.parse_args()
    clock = "process_time" if args.cpu else "perf_counter"
    print(f"{'':22} {'split':>8} {'layer':>8} {'couplings':>10} {'larger':>8}  (seconds; importing emlp apart)")
    for case in args.names:
        name, power, group = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            for store, times in (("cold", 1), ("warm", 3)):
                code = OURS.format(name=name, power=power, cold=store == "cold", largest=LARGEST, clock=clock)
                outs = [run(code, 900, EMKERNEL_STORE=folder, EMKERNEL_SHIPPED="0") for _ in range(times)]
                out = min(outs, key=lambda o: sum(map(float, o[1:5])) if len(o) > 1 else float("inf"))
                if len(out) == 1:
                    print(f"{name} V^{power} {store}: {out[0]}")
                    continue
                imported, split, layer, coupled, larger = map(float, out[:5])
                extra = f"  + import {imported:.1f}" if imported else ""
                row = f"{split:8.3f} {layer:8.3f} {coupled:10.3f} {larger:8.3f}"
                print(f"{name + f' V^{power} {store}':22} {row}{extra}", flush=True)
        if len(out) > 1:
            print(f"{'':22} {out[5]} irreducibles, {out[6]} + {out[7]} couplings, {out[8]} maps of copies")
        print(f"{'emlp alone':22} {' '.join(run(EMLP.format(group=group, power=power), args.limit))}", flush=True)


if __name__ == "__main__":
    main()
