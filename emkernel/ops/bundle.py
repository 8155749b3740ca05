"""Inputs whose messages are one product on each edge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Bundle", "fold", "ranges"]

FOLD_LIMIT = 2**18  # numbers


@dataclass(frozen=True)
class Bundle:
    """Neighbouring input irreducibles b of equally many channels m, as one feature f (E, D, m) with D = Σ d_b.

    The messages of a hidden irreducible a to all of them, C_ab (Y_e^a ⊗ f_j^b), are the rows of one product M f with
    M = Y F (E, s Q, D), which is zero where a row belongs to another b.

    Attributes:
        inputs: the places b.
        size, channels: D and m.
        folds: per hidden irreducible a that is sent, F (d_a s, s Q D), Q rows for its pairs in order.
    """

    inputs: range
    size: int
    channels: int
    folds: dict[int, torch.Tensor]


def fold(couplings: list[tuple[int, torch.Tensor]], size: int, fields: int) -> torch.Tensor | None:
    """F (d_a s, s Q D), diagonal in s fields, from each C (Q_b, d_a, d_b) and the place of its b among D; None where it
    is large."""
    wide = torch.cat([nn.functional.pad(C, (at, size - at - C.shape[2])) for at, C in couplings])
    if wide.numel() * fields**2 > FOLD_LIMIT:
        return None
    eye = torch.eye(fields, dtype=wide.dtype, device=wide.device)
    return torch.einsum("qab,st->astqb", wide, eye).reshape(wide.shape[1] * fields, -1)


def ranges(sizes: list[tuple[int, int]], rows: list[list[int]]) -> list[range]:
    """How inputs are bundled, those beside one another and of equally many channels: so that the products are cheapest.

    Args:
        sizes: (d_b, m_b) of each input.
        rows: s Q of each hidden irreducible and input, zero where it is not sent.
    """
    best: list[tuple[float, list[range]]] = [(0.0, [])]  # for the first inputs, ever more of them
    for stop in range(1, len(sizes) + 1):
        found = []
        for start in range(stop):
            if len({m for _, m in sizes[start:stop]}) == 1:
                cost, before = best[start]
                last = range(start, stop)
                found.append((cost + _cost(last, sizes, rows), [*before, last]))
        best.append(min(found, key=lambda each: each[0]))
    return best[-1][1]


def _cost(inputs: range, sizes: list[tuple[int, int]], rows: list[list[int]]) -> float:
    """Of all M and M f on an edge, in multiplications: a call of a small product takes as long as 2,000, writing a
    number as 8, and a multiplication as 60 where there are fewer than 400, which are done one by one."""
    width, cost = sum(sizes[b][0] for b in inputs), 0
    for each in rows:
        height = sum(each[b] for b in inputs)
        product = height * width * sizes[inputs.start][1]
        cost += (2000 + 8 * height * width + product * (60 if product < 400 else 1)) * (height > 0)
    return cost
