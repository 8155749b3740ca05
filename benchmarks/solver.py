"""Splitting high tensor powers and solving couplings, cold, from the store, and by emlp alone.

For each group: V^⊗k is split into irreducibles and an equivariant linear layer V^⊗k -> V^⊗k built; then all couplings
a ⊗ b -> c of the first ten irreducibles met are solved, those of more than a million numbers last. Cold is an empty
store, warm the same again from the disk, each in a fresh process, warm the best of three; the import of emlp, which
only a cold process needs, is counted apart. The reference is emlp's own basis of the same equivariant maps
V^⊗k -> V^⊗k, in a process that is stopped after --limit seconds.

    python benchmarks/solver.py [--limit 120] [--cpu] [O3 Octa Lorentz S20]

On a busy machine --cpu counts processor time instead, that of all threads together.
"""

import argparse
import os
import subprocess
import sys
import tempfile

from _measure import add_options, machine, settle
from _results import Table, command, plot_bars

# group, powers k, of which emlp finishes the first, and the group there
CASES = {
    "O3": ("O(3)", (4, 6), "O(3)"),
    "Octa": ("Octa", (3, 6), "Same('Octa')"),
    "Lorentz": ("Lorentz", (3, 4), "O13()"),
    "S20": ("S(20)", (1, 2), "S(20)"),
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
import emkernel as ek

class Same(Group):  # that emlp does not have
    def __init__(self, name):
        G = ek.groups.get(name)
        for generators in ("discrete_generators", "lie_algebra"):
            if len(getattr(G, generators)):
                setattr(self, generators, getattr(G, generators))
        super().__init__()

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
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=limit, env=env
        )
    except subprocess.TimeoutExpired:
        return [f"stopped after {limit:.0f} s"]
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return [f"fails: {said[-1][:80]}"]
    return done.stdout.split()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME")
    parser.add_argument("--limit", type=float, default=120, help="seconds for emlp")
    parser.add_argument("--cpu", action="store_true", help="processor time of ours")
    add_options(parser)
    args = parser.parse_args()
    settle(args)
    columns = [
        ("seconds", "name", ""),
        ("split", "split", ".3f"),
        ("layer", "layer", ".3f"),
        ("couplings", "couplings", ".3f"),
        ("larger", "larger", ".3f"),
        ("importing emlp", "imported", ".1f"),
        ("maps", "maps", "d"),
        ("all maps by emlp", "emlp", ".1f"),
        ("emlp / split and layer", "ratio", ".0f"),
    ]
    table = Table(columns, "Splitting tensor powers and solving couplings", machine(args))
    lines = {}
    for name in args.names:
        group, powers, of_emlp = CASES[name]
        for power in (powers[0],) if args.quick else powers:
            for row in measure(group, power, of_emlp, args, table):
                seconds = [row.get(key) or 0.0 for key in ("split", "layer", "emlp")]
                if "failed" not in row:
                    lines.setdefault(row["name"], []).append((row["group"], sum(seconds)))
    if args.cpu:
        table.note("Times of emkernel are those of the processor, of all threads together.")
    panel = {"x": "split and layer; all maps by emlp, s", "lines": lines}
    out = args.out / "solver-cpu"
    plots = plot_bars(out.with_suffix(".png"), [panel], f"{table.title}\n{table.machine}")
    table.write(out, command(), "group", plots)


def measure(group: str, power: int, of_emlp: str, args, table: Table) -> list[dict]:
    """The rows of one power: emlp, cold and warm."""
    title = f"{group}, V^{power}"
    table.head(title)
    # emlp's progress bar fails on the numbers of some versions of numpy
    out = run(EMLP.format(group=of_emlp, power=power), args.limit, TQDM_DISABLE="1")
    alone = {"emlp": float(out[0]), "maps": int(out[1])} if len(out) > 1 else {"failed": out[0]}
    rows = [{"group": title, "name": "emlp alone", **alone}]
    table.add(rows[0])
    clock = "process_time" if args.cpu else "perf_counter"
    with tempfile.TemporaryDirectory() as folder:
        for store, times in (("cold", 1), ("warm", 3)):
            code = OURS.format(name=group, power=power, cold=store == "cold", largest=LARGEST, clock=clock)
            outs = [run(code, 900, EMKERNEL_STORE=folder, EMKERNEL_SHIPPED="0") for _ in range(times)]
            row = {"group": title, "name": store}
            if done := [out for out in outs if len(out) > 1]:
                out = min(done, key=lambda out: sum(map(float, out[1:5])))
                imported, *seconds = map(float, out[:5])
                row |= dict(zip(("split", "layer", "couplings", "larger"), seconds))
                row |= {"imported": imported or None, "maps": int(out[8])}
                if "emlp" in alone and alone["maps"] != row["maps"]:
                    raise SystemExit(f"{title}: emlp finds {alone['maps']} maps, emkernel {row['maps']}")
                if "emlp" in alone:
                    row["ratio"] = alone["emlp"] / (row["split"] + row["layer"])
            else:
                row["failed"] = outs[0][0]
            rows.append(row)
            table.add(row)
    if done:
        table.note(f"{title}: {out[5]} irreducibles, {out[6]} + {out[7]} couplings of them.")
    return rows


if __name__ == "__main__":
    main()
