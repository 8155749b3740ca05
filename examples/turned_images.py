"""Images learned upright and recognised turned: a steerable network of grid convolutions beside an ordinary one.

    python examples/turned_images.py

Eight signs, each a few blobs of ink; the images that are learned stand upright, those that are tested are turned by any
angle. Both networks have three convolutions with as many channels. About a minute on one core.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import nn

import emkernel as ek
from emkernel import Scalar
from emkernel.nn import Gate, GridConv, InvariantPool, Pointwise

SIZE, CLASSES, BLOBS = 25, 8, 5


class Signs:
    """(B, 1, SIZE, SIZE) images and their classes; a sign is where its blobs are, in pixels from the centre."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator
        self.blobs = 10 * torch.rand(CLASSES, BLOBS, 2, generator=generator) - 5

    def __call__(self, count: int, turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
        label = torch.randint(0, CLASSES, (count,), generator=self.generator)
        angle = 2 * math.pi * torch.rand(count, generator=self.generator) * turned
        c, s = angle.cos(), angle.sin()
        turn = torch.stack([c, -s, s, c], 1).reshape(-1, 2, 2)
        hand = 0.3 * torch.randn(count, BLOBS, 2, generator=self.generator)
        at = torch.einsum("nij,nbj->nbi", turn, self.blobs[label] + hand)
        axis = torch.arange(SIZE) - (SIZE - 1) / 2
        pixels = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
        ink = torch.exp(-(pixels - at[:, :, None, None]).square().sum(-1) / (2 * 2.0**2)).sum(1, keepdim=True)
        return ink + 0.05 * torch.randn(ink.shape, generator=self.generator), label


class Steerable(nn.Module):
    """Equivariant up to the pixels, invariant at the end."""

    def __init__(self, group: ek.MatrixGroup, channels: int = 8):
        super().__init__()
        kinds = [r for r in ek.irreps(group, degree=2) if not r.is_trivial]
        rep = sum((channels * r for r in kinds), channels * Scalar(group))
        self.layers = nn.Sequential(
            GridConv(Scalar(group), rep, 5, padding="same", radial=4),
            Pointwise(Gate(rep)),
            GridConv(rep, rep, 5, stride=2, padding=2, radial=4),
            Pointwise(Gate(rep)),
            GridConv(rep, rep, 5, padding="same", radial=4),
        )
        self.pool = InvariantPool(rep, "mean")
        self.head = nn.Linear(self.pool.size, CLASSES)
        self.width = rep.size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        image = torch.arange(len(y), device=y.device).repeat_interleave(y[0, 0].numel())
        return self.head(self.pool(y.movedim(1, -1).reshape(-1, self.width), image, len(y)))


class Ordinary(nn.Module):
    """The same with the convolutions of torch."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2),
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return self.head(y.mean((2, 3)))


def learn(network: nn.Module, signs: Signs, steps: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        x, label = signs(32, turned=False)
        loss = nn.functional.cross_entropy(network(x), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def accuracy(network: nn.Module, signs: Signs, turned: bool) -> float:
    x, label = signs(400, turned)
    return float((network(x).argmax(1) == label).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{'network':10} {'weights':>8} {'upright':>8} {'turned':>7}")
    torch.manual_seed(args.seed)
    steerable = Steerable(ek.groups.SO(2))
    for name, network in (("steerable", steerable), ("ordinary", Ordinary(steerable.width))):
        signs = Signs(torch.Generator().manual_seed(args.seed))
        learn(network, signs, args.steps)
        weights = sum(p.numel() for p in network.parameters())
        found = [accuracy(network, signs, turned) for turned in (False, True)]
        print(f"{name:10} {weights:>8,} {found[0]:>8.3f} {found[1]:>7.3f}", flush=True)


if __name__ == "__main__":
    main()
