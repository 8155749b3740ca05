"""The exceptions that a user of emkernel can meet, beyond Python's own."""

__all__ = ["DataError", "GroupError", "RepError", "SolverError"]


class GroupError(ValueError):
    """A group was described by matrices that cannot generate it.

    Example:
        >>> ek.MatrixGroup("flat", discrete_generators=[[[1, 0], [0, 0]]])
        Traceback (most recent call last):
        emkernel.errors.GroupError: flat: discrete_generators[0] ...
    """


class RepError(ValueError):
    """A representation is unbound, mismatched, or not a representation at all.

    Example:
        >>> ek.equivariant_basis(V(groups.Oh()), V(groups.SO(3)))
        Traceback (most recent call last):
        emkernel.errors.RepError: rep_in belongs to Oh, rep_out to SO(3); expected the same group
    """


class SolverError(RuntimeError):
    """A linear-algebra problem has no answer that can be trusted; nothing partial is returned.

    Example:
        >>> ek.irreps(groups.Unipotent(2))  # shears do not split
        Traceback (most recent call last):
        emkernel.errors.SolverError: ...
    """


class DataError(ValueError):
    """A data file is missing, truncated, or not in the format it claims.

    Example:
        >>> ek.data.load_qm9("nowhere")
        Traceback (most recent call last):
        emkernel.errors.DataError: nowhere does not exist...
    """
