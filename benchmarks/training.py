"""A training step (forward, backward, optimiser) of the reference networks, on made-up batches of realistic sizes.

python benchmarks/training.py [--models molecules shapes particles] [--device cpu] [--eager]

Each measurement runs in a process of its own. The reference is the same network with the kernel on every edge. Building
the neighbour graphs is part of the step, as in training; those of shapes are built outside what torch.compile makes,
and neither its time nor that of tuning counts.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from _measure import add_options, answer, clock, machine, memory, operations, settle, spawn
from _results import Table, command, plot_bars

import emkernel as ek
from emkernel.models import MoleculeNet, ParticleNet, ShapeNet
from emkernel.train import TASKS

REFERENCE = "kernel on every edge"
KINDS = {"emkernel": "auto", "emkernel, compiled": "auto", REFERENCE: "kernel"}  # the contraction


def molecules(number: int, generator: torch.Generator) -> ek.GraphBatch:
    """About 18 atoms each, as in QM9, bonded in a tree of short branches with a ring or two."""
    sizes = (18 + 3 * torch.randn(number, generator=generator)).round().long().clamp(5, 29).tolist()
    edges, start = [], 0
    for n in sizes:
        back = 1 + torch.randint(3, (n - 1,), generator=generator)
        child = torch.arange(1, n)
        pairs = torch.stack([(child - back).clamp(min=0), child])
        rings = torch.stack([torch.arange(0, n - 4, 8), torch.arange(4, n, 8)])
        edges.append(torch.cat([pairs, rings], 1).unique(dim=1) + start)
        start += n
    bonds = torch.cat(edges, 1)
    bonds = torch.cat([bonds, bonds.flip(0)], 1)
    bonds = bonds[:, bonds[1].argsort(stable=True)]
    index = torch.arange(number).repeat_interleave(torch.tensor(sizes))
    atoms = len(index)
    return ek.GraphBatch(
        1.5 * torch.randn(atoms, 3, generator=generator),
        index,
        number,
        {"z": torch.randint(5, (atoms,), generator=generator)},
        torch.rand(number, generator=generator),
        bonds,
        {"bond": torch.randint(1, 5, (bonds.shape[1],), generator=generator)},
    )


def shapes(number: int, generator: torch.Generator, points: int = 1024) -> ek.GraphBatch:
    """Ellipsoids of random axes, with normals, in the unit ball."""
    axes = 0.3 + 0.7 * torch.rand(number, 1, 3, generator=generator)
    sphere = torch.randn(number, points, 3, generator=generator)
    sphere = sphere / sphere.norm(dim=2, keepdim=True)
    normal = sphere / axes
    return ek.GraphBatch(
        (sphere * axes).reshape(-1, 3),
        torch.arange(number).repeat_interleave(points),
        number,
        {"normal": (normal / normal.norm(dim=2, keepdim=True)).reshape(-1, 3)},
        torch.randint(40, (number,), generator=generator),
    )


def particles(number: int, generator: torch.Generator, each: int = 5) -> ek.GraphBatch:
    """Five charged particles each, every one joined with the others."""
    n = number * each
    i, j = torch.meshgrid(torch.arange(each), torch.arange(each), indexing="ij")
    pairs = torch.stack([j[i != j], i[i != j]])
    edges = (pairs[:, None] + each * torch.arange(number)[:, None]).reshape(2, -1)
    vel = torch.randn(n, 3, generator=generator)
    charge = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
    return ek.GraphBatch(
        torch.randn(n, 3, generator=generator),
        torch.arange(number).repeat_interleave(each),
        number,
        {"vel": vel, "charge": charge},
        torch.randn(n, 3, generator=generator),
        edges,
    )


@dataclass(frozen=True)
class Model:
    """A network and its batches: how many items in one, for the reference, and with --quick."""

    build: Callable[..., torch.nn.Module]
    batch: Callable[[int, torch.Generator], ek.GraphBatch]
    items: int
    reference: int
    quick: int
    task: str


MODELS = {
    "molecules": Model(MoleculeNet, molecules, 64, 64, 16, "qm9"),
    "shapes": Model(lambda group, **options: ShapeNet(group, 40, **options), shapes, 32, 4, 2, "modelnet"),
    "particles": Model(ParticleNet, particles, 64, 64, 16, "nbody"),
}


def measure(model: str, items: int, kind: str, device: str, threads: int, seconds: float) -> dict:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = MODELS[model].build(ek.groups.O(3), contraction=KINDS[kind]).to(device)
    call = torch.compile(network, dynamic=True) if kind.endswith("compiled") else network
    batch = MODELS[model].batch(items, torch.Generator().manual_seed(0)).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loss = TASKS[MODELS[model].task].loss

    def outputs():
        return call(batch, network.graphs(batch)) if isinstance(network, ShapeNet) else call(batch)

    def step():
        optimiser.zero_grad()
        loss(outputs(), batch).backward()
        optimiser.step()

    def forward():
        with torch.no_grad():
            outputs()

    step()
    used = memory(step, device, [*network.parameters(), *network.buffers()])
    if call is not network:  # nothing sees what goes on inside
        used = {key: value for key, value in used.items() if device != "cpu" or key == "resident"}
    times = {
        "forward": 1e3 * clock(forward, device, seconds / 2),
        "step": 1e3 * clock(step, device, seconds),
    }
    done = operations(step) if call is network else None
    return {
        **times,
        "rate": 1e3 * items / times["step"],
        **used,
        "gflop": None if done is None else done / 1e9,
        "weights": sum(p.numel() for p in network.parameters()),
        "points": len(batch.pos),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--items", type=int, help="molecules, shapes or systems in a batch")
    parser.add_argument("--gigabytes", type=float, default=14.0, help="memory a process may take on the CPU")
    parser.add_argument("--eager", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a process may take")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        answer(measure(**json.loads(args.measure)))
        return
    settle(args)
    columns = [
        ("", "name", ""),
        ("items", "items", "d"),
        ("forward, ms", "forward", ".1f"),
        ("step, ms", "step", ".1f"),
        ("items/s", "rate", ".1f"),
        ("times faster", "ratio", ".1f"),
        ("allocated, MB", "allocated", ".0f"),
        ("saved, MB", "saved", ".0f"),
        ("peak, MB", "resident", ".0f"),
        ("GFLOP", "gflop", ".2f"),
        ("weights", "weights", "d"),
    ]
    table = Table(columns, "A training step of the reference networks", machine(args))
    for model in args.models:
        chosen, results = MODELS[model], {}
        for kind in KINDS:
            if args.eager and kind.endswith("compiled"):
                continue
            items = min(chosen.items, chosen.reference) if kind == REFERENCE else chosen.items
            items = args.items or (chosen.quick if args.quick else items)
            options = {"model": model, "items": items, "kind": kind, "device": args.device}
            options |= {"threads": args.threads, "seconds": args.seconds}
            result = spawn(__file__, options, gigabytes=args.gigabytes, limit=args.limit)
            results[kind] = {"group": model, "name": kind, "items": items, **result}
        reference = results[REFERENCE].get("rate")
        table.head(model)
        for row in results.values():
            if reference and "rate" in row:
                row["ratio"] = row["rate"] / reference
            table.add(row)
    out, panels = args.out / f"training-{args.device.split(':')[0]}", []
    for what, key in (("a step, ms", "step"), ("memory allocated, MB", "allocated")):
        lines = {
            name: [(r["group"], r[key] / r["items"]) for r in table.rows if r["name"] == name and key in r]
            for name in KINDS
        }
        panels.append({"x": f"{what} for each item", "lines": lines})
    plots = plot_bars(out.with_suffix(".png"), panels, f"{table.title}\n{table.machine}")
    table.write(out, command(), "group", plots)


if __name__ == "__main__":
    main()
