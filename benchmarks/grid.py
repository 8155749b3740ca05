"""The convolution on a grid: its error of equivariance under all turns, and its time beside torch's own and PointConv.

    python benchmarks/grid.py [--errors] [--speed]

Errors are means over five draws of the weights, of the worst of twelve elements, for fields whose shortest waves have
so many steps of the grid. Times are of the processor, forward and backward, in the features and the weights.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import emkernel as ek
from emkernel import Scalar, V
from emkernel.checks import grid_equivariance_error
from emkernel.nn import GridConv, PointConv

WAVELENGTHS = (4.0, 6.0, 8.0, 12.0, 16.0)


def errors() -> None:
    groups = ek.groups
    print(f"{'group':>8} {'kernel':>9} {'taps':>5}  {'within':>6}" + "".join(f"{w:>9.0f}" for w in WAVELENGTHS))
    for name, G, sizes, field in (
        ("O(2)", groups.O(2), (3, 5, 7, 9), 33), ("O(3)", groups.O(3), (3, 5), 21),
    ):  # fmt: skip
        rep = (2 * Scalar + V)(G)
        for kind in ("implicit", "fixed"):
            for size in sizes:
                for envelope in (True, False):
                    found = []
                    for seed in range(5):
                        torch.manual_seed(seed)
                        conv = GridConv(rep, rep, size, kernel=kind, envelope=envelope)
                        found.append(
                            [grid_equivariance_error(conv, size=field, wavelength=w, n=11) for w in WAVELENGTHS]
                        )
                    row = "".join(f"{e:>9.1e}" for e in np.mean(found, 0))
                    print(f"{name:>8} {kind:>9} {size:>5}  {'ball' if envelope else 'box':>6}{row}", flush=True)


def seconds(repeat: int, run, *args) -> float:
    """The least of a few, processor time."""
    found = []
    for _ in range(repeat + 1):
        start = time.process_time()
        run(*args)
        found.append(time.process_time() - start)
    return min(found[1:])


def step(layer, *args):
    """Forward and backward."""
    x = args[0].clone().requires_grad_()
    layer(x, *args[1:]).square().sum().backward()


def build(conv: GridConv):
    """The weight alone, forward and backward."""
    conv.weight_and_bias()[0].square().sum().backward()


def grid_of_points(conv: GridConv, size: tuple[int, ...], batch: int):
    """Positions and edges of a batch of grids, with an edge from every tap that is not zero."""
    d = len(size)
    index = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"), -1).reshape(-1, d)
    strides = torch.tensor([int(np.prod(size[a + 1 :])) for a in range(d)])
    sources, targets = [], []
    for tap in torch.as_tensor(conv.steps).long():
        at = index + tap
        inside = ((at >= 0) & (at < torch.tensor(size))).all(1)
        sources.append((at[inside] * strides).sum(1))
        targets.append(inside.nonzero()[:, 0])
    edges = torch.stack([torch.cat(sources), torch.cat(targets)])
    n = len(index)
    edges = torch.cat([edges + n * b for b in range(batch)], 1)
    return index.repeat(batch, 1).float(), ek.Neighbours.of(edges, n * batch)


def speed(repeat: int) -> None:
    groups = ek.groups
    print(f"{'group':>6} {'channels':>9} {'field':>14} {'kernel':>7} {'torch ms':>9} {'grid ms':>9} {'ratio':>6} "
          f"{'weight ms':>10} {'points ms':>10} {'ratio':>6}")  # fmt: skip
    plane = ek.irreps(groups.O(2), 2)
    cases = [(groups.O(2), [r for r in plane if r.size == 2 or r.is_trivial], 16, 4, (64, 64), k) for k in (3, 5, 7)]
    cases += [(groups.O(3), [Scalar(groups.O(3)), V(groups.O(3))], 8, 2, (16, 16, 16), k) for k in (3, 5)]
    for G, kinds, copies, batch, size, kernel in cases:
        rep = sum((copies * r for r in kinds[1:]), copies * kinds[0])
        torch.manual_seed(0)
        conv = GridConv(rep, rep, kernel, padding="same")
        plain = conv.export()
        x = torch.randn(batch, rep.size, *size)
        points = PointConv(rep, rep, cutoff=conv.kernel.embed.cutoff, envelope=True, neighbours=conv.neighbours)
        points.load_state_dict(conv.state_dict())
        pos, graph = grid_of_points(conv, size, batch)
        flat = x.movedim(1, -1).reshape(-1, rep.size)
        with torch.no_grad():
            y = conv(x).movedim(1, -1).reshape(-1, rep.size)
            assert (points(flat, pos, graph) - y).abs().max() < 1e-4 * y.abs().max()
        times = [
            seconds(repeat, step, plain, x),
            seconds(repeat, step, conv, x),
            seconds(repeat, build, conv),
            seconds(1, step, points, flat, pos, graph),
        ]
        a, b, w, p = (1e3 * t for t in times)
        field = f"{batch} x " + "x".join(map(str, size))
        print(f"{G.name:>6} {rep.size:>9} {field:>14} {kernel:>7} {a:>9.1f} {b:>9.1f} {b / a:>6.2f} {w:>10.1f} "
              f"{p:>10.1f} {p / b:>6.1f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", action="store_true", help="this part alone")
    parser.add_argument("--speed", action="store_true", help="this part alone")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.errors or not args.speed:
        errors()
    if args.speed or not args.errors:
        speed(args.repeat)


if __name__ == "__main__":
    main()
