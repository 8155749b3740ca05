"""The exceptions that a user of emkernel can meet, beyond Python's own."""

__all__ = ["DataError", "GroupError", "RepError", "SolverError"]


class GroupError(ValueError):
    """A group was described by matrices that cannot generate it."""


class RepError(ValueError):
    """A representation is unbound, mismatched, or not a representation at all."""


class SolverError(RuntimeError):
    """A linear-algebra problem has no answer that can be trusted; nothing partial is returned."""


class DataError(ValueError):
    """A data file is missing, truncated, or not in the format it claims."""
