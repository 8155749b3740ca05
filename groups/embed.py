"""New groups from given ones: on chosen axes of a larger space, and generated together."""

from collections.abc import Sequence

import numpy as np

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["Embed", "Generated"]


def Embed(group: MatrixGroup, d: int, axes: Sequence[int], name: str | None = None) -> MatrixGroup:
    """The group acting on the axes given of R^d, and as the identity on the others.

    Args:
        group: acts on R^(group.d).
        d: the dimension of the larger space.
        axes: group.d different axes of R^d, in the order of the group's own.
        name: defaults to ``Embed(group,d,axes)``.

    Raises:
        GroupError: the axes are too many, too few, repeated or outside 0..d-1.

    Example:
        >>> groups.Embed(groups.SO(3), 4, axes=[1, 2, 3]).d       # the rotations among the Lorentz transformations
        4
    """
    count(d, "Embed(group, d, axes): d")
    axes = [count(a, "Embed(group, d, axes): an axis", least=0) for a in axes]
    if len(axes) != group.d or len(set(axes)) != len(axes) or max(axes) >= d:
        raise GroupError(f"{group.name} acts on {group.d} coordinates and needs as many different axes within "
                         f"0..{d - 1}, got {axes}")
    block = np.ix_(axes, axes)

    def placed(matrices: np.ndarray, background: np.ndarray) -> np.ndarray:
        out = np.tile(background, (len(matrices), 1, 1))
        for large, small in zip(out, matrices):
            large[block] = small
        return out

    name = name or f"Embed({group.name},{d},{axes})".replace(" ", "")
    return MatrixGroup(name, placed(group.discrete_generators, np.eye(d)),
                       placed(group.lie_algebra, np.zeros((d, d))), d=d)


def Generated(name: str, *groups: MatrixGroup) -> MatrixGroup:
    """The smallest group that contains all the ``groups`` given, which act on one space; called ``name``.

    For groups that commute, or one of which normalises the other, this is their product.

    Raises:
        GroupError: no group is given, or they act on spaces of different dimension.

    Example:
        >>> groups.Generated("O x Inv", groups.Octa(), groups.Inv()).order
        48
    """
    sizes = {g.name: g.d for g in groups}
    if len(set(sizes.values())) != 1:
        raise GroupError(f"{name}: the groups must act on one space, got dimensions {sizes}")
    return MatrixGroup(name, [h for g in groups for h in g.discrete_generators],
                       [a for g in groups for a in g.lie_algebra], d=groups[0].d)
