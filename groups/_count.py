"""The one argument that families of groups share: a whole number."""

from numbers import Integral

from emkernel.errors import GroupError


def count(value: int, family: str, least: int = 1) -> int:
    """``value`` as an int, or a GroupError that names the family."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise GroupError(f"{family} takes a whole number of at least {least}, got {value!r}")
    return int(value)
