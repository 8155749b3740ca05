"""What is the right symmetry worth? A group of one's own, checked, and the same network trained under four groups.

Five charged particles move in an electric field along z; the network predicts how far each one will have strayed from a
straight line. Rotations about z and mirrors that contain z change nothing but the point of view. Run it with

    python examples/quickstart.py
"""

import argparse
import time
from math import cos, pi, sin

import numpy as np
import torch
from torch.utils.data import DataLoader

import emkernel as ek
from emkernel.data import as_is, load_nbody
from emkernel.models import ParticleNet


def c5v() -> ek.MatrixGroup:
    """Rotations about z by multiples of 72 degrees, and vertical mirrors; no crystal has them, nor the catalogue."""
    c, s = cos(2 * pi / 5), sin(2 * pi / 5)
    fivefold = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    mirror = np.diag([1, -1, 1])
    return ek.MatrixGroup("C5v", discrete_generators=[fivefold, mirror])


def distance(network: torch.nn.Module, data) -> float:
    """Mean distance between the predicted and the true positions."""
    batch = data[range(len(data))]
    with torch.no_grad():
        return float((network(batch) - batch.y).norm(dim=1).mean())


def train(
    group: ek.MatrixGroup, channels: int, data: dict, epochs: int, seed: int
) -> tuple[float, int, float]:
    """Validation error, number of parameters, and seconds, of a network that is equivariant under the group."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    network = ParticleNet(
        group, channels=channels, degree=2, layers=2, width=4, scale=float(data["train"].y.std())
    )
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(data["train"], batch_size=50, shuffle=True, collate_fn=as_is, generator=order)
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for batch in loader:
            loss = (network(batch) - batch.y).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    parameters = sum(p.numel() for p in network.parameters())
    return distance(network, data["val"]), parameters, time.perf_counter() - started


def main() -> None:
    """Check the group, train under it and under others, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--systems", type=int, default=500, help="particle systems to learn from")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the weights and the order")
    args = parser.parse_args()

    G = c5v()
    report = ek.check_group(G, order=10)
    print(report)
    if not report.passed:
        raise SystemExit("the group is not what it should be")

    data = load_nbody(seed=args.seed, n_train=args.systems, n_val=500, n_test=1)
    print(f"\n{args.systems} systems of 5 particles, {args.epochs} epochs; an error of 0 is perfect, one of")
    print(f"{data['val'].y.norm(dim=1).mean():.3f} is that of a network that predicts straight lines\n")
    # channels such that all networks have about as many parameters
    candidates = {
        "none": (ek.groups.Trivial(3), 22, "no symmetry"),
        "own": (G, 6, "our group, a part of the true one"),
        "true": (ek.groups.O2z(), 6, "all the symmetry there is"),
        "wrong": (ek.groups.O(3), 6, "too large: the field breaks it"),
    }
    errors = {}
    print(f"{'group':10} {'error':>6} {'parameters':>11} {'seconds':>8}")
    for name, (group, channels, note) in candidates.items():
        errors[name], parameters, seconds = train(group, channels, data, args.epochs, args.seed)
        print(f"{group.name:10} {errors[name]:6.3f} {parameters:11,} {seconds:8.1f}   {note}", flush=True)
    ratio = {name: 100 * (error / errors["none"] - 1) for name, error in errors.items()}
    print(
        f"\nAgainst no symmetry, {G.name} changed the error by {ratio['own']:+.0f} %, the full symmetry by "
        f"{ratio['true']:+.0f} %, and a symmetry that is not there by {ratio['wrong']:+.0f} %."
    )


if __name__ == "__main__":
    main()
