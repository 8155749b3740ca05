"""Between the user's flat features and the compute layout: one tensor (N, d, m) per irreducible, channels last."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from ..rep import DualRep, GivenRep, ProductRep, Rep, ScalarRep, SubRep, SumRep, VectorRep
from ..solver.irreps import Irrep, irrep_table
from ._module import EquivariantModule

__all__ = ["Layout"]


class Layout(EquivariantModule):
    """The change of basis x (N, rep.size) <-> blocks [(N, d_i, m_i)], m_i copies of the irreducible i.

    Copies of an irreducible are ordered by term of the representation, then by copy of the term.

    Args:
        rep: a bound representation.

    Attributes:
        irreps: the irreducibles that occur, in the order of their first appearance.
        copies: how often each occurs.
    """

    def __init__(self, rep: Rep):
        super().__init__()
        self.rep = rep
        table = irrep_table(rep.group)
        order: dict[int, Irrep] = {}
        copies: dict[int, int] = {}
        self._terms = []
        for t, (n, term, where) in enumerate(rep.slices):
            if not term.size:
                continue
            decomposition = table.decompose(term)
            parts = decomposition.parts
            to = np.concatenate([p[1].reshape(-1, term.size) for p in parts])
            back = to
            if not decomposition.orthogonal:
                back = np.concatenate([p[2].transpose(0, 2, 1).reshape(-1, term.size) for p in parts])
            plain = len(parts) == 1 and len(parts[0][1]) == 1 and np.array_equal(to, np.eye(term.size))
            if not plain:
                self._constant(f"to{t}", to)
                self._constant(f"back{t}", back)
            pieces = []
            for irrep, frames, _ in parts:
                order[irrep.index] = irrep
                start = copies.get(irrep.index, 0)
                copies[irrep.index] = start + n * len(frames)
                pieces.append((irrep.index, len(frames), irrep.size, start))
            self._terms.append((n, term.size, where.start, None if plain else t, pieces))
        self.irreps = list(order.values())
        self.copies = [copies[i] for i in order]
        self._slot = {irrep.index: k for k, irrep in enumerate(self.irreps)}

    def is_foreign(self, state_dict, prefix: str) -> bool:
        """Whether a checkpoint has another group or representation under this prefix."""
        digest = state_dict.get(prefix + "digest")
        return digest is not None and not torch.equal(digest.cpu(), _digest(self.rep))

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "digest"] = _digest(self.rep)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        key = prefix + "digest"
        if key not in state_dict:
            missing.append(key)
            return
        if key in unexpected:
            unexpected.remove(key)
        if self.is_foreign(state_dict, prefix):
            errors.append(
                f"{prefix.rstrip('.')}: the checkpoint is of another group, of other representations than {self.rep} "
                f"of {self.rep.group.name}, or, where this is inside a kernel, of one of another degree, width or kind"
            )

    def blocks(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, size) -> one (N, d, m) per irreducible."""
        parts: list[list[torch.Tensor]] = [[] for _ in self.irreps]
        for n, size, start, t, pieces in self._terms:
            z = x[:, start : start + n * size].reshape(-1, n, size)
            if t is None:
                parts[self._slot[pieces[0][0]]].append(z.transpose(1, 2))
                continue
            z = z @ getattr(self, f"to{t}").T
            at = 0
            for index, m, d, _ in pieces:
                piece = z[:, :, at : at + m * d].reshape(-1, n, m, d)
                parts[self._slot[index]].append(piece.permute(0, 3, 1, 2).reshape(-1, d, n * m))
                at += m * d
        return [p[0] if len(p) == 1 else torch.cat(p, 2) for p in parts]

    def flat(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        """One (N, d, m) per irreducible -> (N, size)."""
        return self._flat(blocks, "back")

    def flat_dual(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Linear functions of the blocks -> the same functions of the flat features: blocks(x) composed with them."""
        return self._flat(blocks, "to")

    def _flat(self, blocks: list[torch.Tensor], which: str) -> torch.Tensor:
        out = []
        for n, size, _, t, pieces in self._terms:
            cut = []
            for index, m, d, start in pieces:
                piece = blocks[self._slot[index]][:, :, start : start + n * m]
                cut.append(piece.reshape(-1, d, n, m).permute(0, 2, 3, 1).reshape(-1, n, m * d))
            z = cut[0] if len(cut) == 1 else torch.cat(cut, 2)
            if t is not None:
                z = z @ getattr(self, f"{which}{t}")
            out.append(z.reshape(-1, n * size))
        return out[0] if len(out) == 1 else torch.cat(out, 1)

    def extra_repr(self) -> str:
        return f"{self.rep} = " + " + ".join(f"{m}x{r.label}" for r, m in zip(self.irreps, self.copies))


def _digest(rep: Rep) -> torch.Tensor:
    """Eight bytes that identify the group, by its generators, and the representation."""

    def describe(r: Rep) -> str:
        if isinstance(r, SumRep):
            return "+".join(f"{n}({describe(t)})" for n, t in r.terms)
        if isinstance(r, ProductRep):
            return "*".join(f"({describe(f)})" for f in r.factors)
        if isinstance(r, DualRep):
            return f"dual({describe(r.base)})"
        if isinstance(r, SubRep):
            return f"sub({describe(r.base)};{hashlib.sha256(np.round(r.back, 10).tobytes()).hexdigest()})"
        if isinstance(r, (Irrep, ScalarRep, VectorRep)):
            return str(r)
        if isinstance(r, GivenRep):
            return f"given({_rounded(r.images.discrete, r.images.lie)})"
        return r.images.digest

    group = _rounded(rep.group.discrete_generators, rep.group.lie_algebra)
    content = hashlib.sha256(f"{group}|{describe(rep)}".encode()).digest()
    return torch.tensor(list(content[:8]), dtype=torch.uint8, device="cpu")


def _rounded(discrete: np.ndarray, lie: np.ndarray) -> str:
    """A digest of matrices to ten digits: another library's cosine may differ in the last one."""
    digest = hashlib.sha256(str((discrete.shape[-1], len(discrete))).encode())
    for matrices in (discrete, lie):
        digest.update((np.round(matrices, 10) + 0.0).tobytes())
    return digest.hexdigest()
