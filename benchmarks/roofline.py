"""How far each stage of a PointConv, forward and backward, is from what the machine can do.

python benchmarks/roofline.py [--points 1024] [--neighbours 15] [--channels 16] [--degree 2] [--width 8]

In the same run the rate of large matrix products and of large additions of memory is measured. The floor of a stage is
the greater of its floating-point operations at the first rate and, at the second, of the bytes that it must read
from other stages and leave to them. The share is floor / time. Operations are timed one by one; what the layer takes
beyond their sum is the framework's. Then come the heaviest kinds of operations, with all that they read and write,
and the matrix products that take longest, repeated alone with the same shapes.
"""

import argparse
from collections import defaultdict
from dataclasses import asdict, replace

import torch
from _layers import CUTOFF, Case
from _measure import add_options, clock, cloud, machine, settle, synchronise
from _results import Table, command, plot_bars
from _trace import Trace, costs

import emkernel as ek
import emkernel.nn.conv
from emkernel.models import harmonic_rep

PREPARE, VECTORS, LOSS = "graph preparation", "edge vectors", "loss"


def rates(device: str, seconds: float) -> tuple[float, float]:
    """FLOP/s of large matrix products, and bytes/s of c = a + b on arrays beyond any cache."""
    flops = 0.0
    for n in (512, 1024, 2048):
        a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
        c = torch.empty_like(a)
        flops = max(flops, 2 * n**3 / clock(lambda: torch.mm(a, b, out=c), device, seconds / 4))  # noqa: B023
    a, b = torch.randn(2**25, device=device), torch.randn(2**25, device=device)
    c = torch.empty_like(a)
    return flops, 3 * 4 * len(a) / clock(lambda: torch.add(a, b, out=c), device, seconds / 2)


def layer(case: Case, device: str, trace: Trace):
    """The layer with its stages marked, and its arguments."""
    rep = harmonic_rep(ek.groups.O(3), case.channels, case.degree)
    conv = ek.nn.PointConv(
        rep,
        rep,
        degree=case.degree,
        width=case.width,
        hidden=case.hidden,
        radial=case.radial,
        cutoff=CUTOFF,
        neighbours=case.neighbours,
    ).to(device)
    kernel = conv.kernel
    trace.method(kernel, "hidden", "mixing and gates")
    trace.module(kernel.embed, "edge embedding")
    trace.module(kernel.net, "invariant network")
    trace.method(kernel.layout_in, "blocks", "layout in")
    trace.method(kernel.layout_out, "flat", "layout out")
    trace.module(conv.self_term, "self term")
    trace.method(emkernel.nn.conv, "node_order", "contraction")
    pos, edge_index = cloud(case.points, case.neighbours, device)
    x = torch.randn(case.points, rep.size, device=device, requires_grad=True)
    return conv, x, pos, edge_index


def numbers(seconds: float, flops: int, moved: int, flop_rate: float, byte_rate: float) -> dict:
    """A row of the table."""
    by_flops, by_bytes = flops / flop_rate, moved / byte_rate
    floor = max(by_flops, by_bytes)
    return {
        "ms": 1e3 * seconds,
        "floor": 1e3 * floor,
        "share": floor / seconds,
        "above": 1e3 * (seconds - floor),
        "gflop": flops / 1e9,
        "mb": moved / 2**20,
        "bound": "operations" if by_flops > by_bytes else "memory",
    }


def alone(shapes: tuple, device: str) -> float:
    """Seconds of one matrix product, or one batch of them, of dense random matrices."""
    a, b = (torch.randn(s, device=device) for s in shapes)
    return clock(lambda: a @ b, device, 0.1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    for key, value in asdict(Case()).items():
        parser.add_argument(f"--{key}", type=int, help=f"default {value}")
    args = parser.parse_args()
    settle(args)
    given = {key: getattr(args, key) for key in asdict(Case()) if getattr(args, key) is not None}
    case = replace(Case(points=256, channels=8) if args.quick else Case(), **given)
    device = args.device
    torch.manual_seed(0)
    trace = Trace(lambda: synchronise(device), VECTORS)
    conv, x, pos, edge_index = layer(case, device, trace)
    weights = list(conv.parameters())

    def both():
        for p in (x, *weights):
            p.grad = None
        with trace.stage(PREPARE):
            graph = ek.Neighbours.of(edge_index, case.points)
        y = conv(x, pos, graph)
        with trace.stage(LOSS):
            loss = y.square().sum()
        loss.backward()

    flop_rate, byte_rate = rates(device, args.seconds)
    wall = clock(both, device, args.seconds)
    ops = trace.run(both, max(3, min(30, round(args.seconds / wall))))
    found = costs(ops)
    whole = costs([replace(op, stage="layer") for op in ops])
    fused = sum(max(c.flops / flop_rate, c.bytes / byte_rate) for c in whole.values())

    columns = [
        ("stage", "stage", ""),
        ("ms", "ms", ".3f"),
        ("floor, ms", "floor", ".3f"),
        ("share of floor", "share", ".0%"),
        ("above floor, ms", "above", ".3f"),
        ("GFLOP", "gflop", ".4f"),
        ("MB", "mb", ".2f"),
        ("bound by", "bound", ""),
    ]
    title = (
        f"{case.points} points, k = {case.neighbours}, {case.channels} channels of spins 0 to {case.degree}, "
        f"width {case.width}"
    )
    table = Table(columns, f"Stages of a PointConv: {title}", machine(args))
    table.note(
        f"Large matrix products {flop_rate / 1e9:.0f} GFLOP/s, additions in memory {byte_rate / 1e9:.1f} GB/s."
    )
    rows, totals = [], {"ms": 0.0, "floor": 0.0}
    for name in ("forward", "backward"):
        table.head(name)
        for (stage, backward), cost in found.items():
            if backward != (name == "backward") or stage == LOSS:
                continue
            row = {"group": name, "stage": stage}
            row |= numbers(cost.seconds, cost.flops, cost.bytes, flop_rate, byte_rate)
            table.add(row)
            rows.append(row)
            totals = {key: totals[key] + row[key] for key in totals}
    slowest = max(rows, key=lambda row: row["above"])
    lost = sum(c.seconds for (stage, _), c in found.items() if stage == LOSS)
    print()
    table.note(
        f"The layer takes {1e3 * wall:.2f} ms: its {len(ops)} operations {totals['ms']:.2f} ms, calling them about "
        f"{max(0.0, 1e3 * (wall - lost) - totals['ms']):.2f} ms. The floors of the stages add up to "
        f"{totals['floor']:.2f} ms, {totals['floor'] / (1e3 * wall):.0%} of the time of the layer; were forward and "
        f"backward one stage each, with the same operations, the floor would be {1e3 * fused:.2f} ms. Where a share "
        "is above 100 %, what passes between stages stays in a cache."
    )
    table.note(
        f"Most is lost in: {slowest['stage']}, {slowest['group']}, {slowest['above']:.2f} ms above its floor."
    )
    table.head("heaviest operations")
    kinds = defaultdict(list)
    for op in ops:
        kinds[op.stage, op.backward, op.name].append(op)
    for (stage, backward, name), same in sorted(kinds.items(), key=lambda k: -sum(op.seconds for op in k[1]))[
        :15
    ]:
        row = numbers(
            sum(op.seconds for op in same),
            sum(op.flops for op in same),
            sum(op.bytes for op in same),
            flop_rate,
            byte_rate,
        )
        where = f"{stage}, {'backward' if backward else 'forward'}"
        table.add({"group": "heaviest operations", "stage": f"{name} ({where}), {len(same)} calls", **row})
    print()
    products = defaultdict(list)
    for op in ops:
        if op.name in ("mm", "bmm", "addmm", "baddbmm"):
            products[op.name, op.shapes[-2:]].append(op)
    for (name, shapes), same in sorted(products.items(), key=lambda p: -sum(op.seconds for op in p[1]))[:8]:
        seconds, flops = sum(op.seconds for op in same), sum(op.flops for op in same)
        single = alone(shapes, device)
        text = " x ".join(str(list(s)) for s in shapes)
        stages = ", ".join(dict.fromkeys(op.stage for op in same))
        table.note(
            f"{name} {text} ({stages}), {len(same)} times: {1e3 * seconds:.3f} ms, "
            f"{flops / seconds / 1e9:.1f} GFLOP/s; alone {flops / len(same) / single / 1e9:.1f} GFLOP/s."
        )
    panels = []
    for name in ("forward", "backward"):
        mine = [row for row in rows if row["group"] == name]
        lines = {
            what: [(row["stage"], row[key]) for row in mine]
            for what, key in (("taken", "ms"), ("floor", "floor"))
        }
        panels.append({"x": f"{name}, ms", "lines": lines})
    out = args.out / f"roofline-{device.split(':')[0]}"
    plots = plot_bars(out.with_suffix(".png"), panels, f"{title}\n{table.machine}", log=False)
    table.write(out, command(), "group", plots)


if __name__ == "__main__":
    main()
