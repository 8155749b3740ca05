"""What enters a contraction."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

__all__ = ["Operands"]


@dataclass
class Operands:
    """The tensors of a contraction, or their derivatives, where None is none.

    Attributes:
        values: (E, d_a, s) per hidden irreducible.
        gates: (E, u) per hidden irreducible; None with ``mix``, where h is the values.
        mix: (s, u) per hidden irreducible.
        features: (num_sources, d_b, m_b) per input irreducible.
        weights: (K_c, m_c) per output irreducible.
    """

    values: list[torch.Tensor]
    gates: list[torch.Tensor | None]
    mix: list[torch.Tensor | None]
    features: list[torch.Tensor]
    weights: list[torch.Tensor]

    def flat(self) -> list[torch.Tensor | None]:
        return [x for f in fields(self) for x in getattr(self, f.name)]

    def like(self, flat) -> Operands:
        """Other tensors, or flags, in the same places."""
        flat = iter(flat)
        return Operands(*([next(flat) for _ in getattr(self, f.name)] for f in fields(self)))

    def width(self, a: int) -> int:
        """Channels u of a hidden irreducible."""
        return self.values[a].shape[2] if self.mix[a] is None else self.mix[a].shape[1]
