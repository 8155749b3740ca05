"""A file of the user's that defines groups, run statement by statement: a group that is none blocks itself alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import GroupError

__all__ = ["run_file"]


def run_file(path: Path) -> tuple[dict[str, Any], dict[str, GroupError]]:
    """What the file defines, and the names at its top level that it does not, as their groups are none.

    Raises:
        GroupError: a statement that assigns no name makes such a group, or needs one.
        Exception: whatever else the file raises.
    """
    tree = ast.parse(path.read_bytes(), str(path))
    future = [s for s in tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    module = ModuleType(path.stem)
    refused: dict[str, GroupError] = {}
    module.__file__ = str(path)
    content = vars(module)
    # as a dataclass, for one, looks its module up; and the file may import its neighbours
    before, sys.modules[path.stem] = sys.modules.get(path.stem), module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        for statement in tree.body:
            alone = ast.Module([*future, statement], [])
            names = _assigned(statement)
            try:
                exec(compile(alone, str(path), "exec"), content)
            except GroupError as e:
                error = e
            except NameError as e:
                if e.name not in refused:
                    raise
                error = refused[e.name]
            else:
                for name in names:
                    refused.pop(name, None)
                continue
            if not names:
                raise error
            refused |= dict.fromkeys(names, error)
            for name in names:
                content.pop(name, None)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
    return content, refused


def _assigned(statement: ast.stmt) -> list[str]:
    """The names to which a statement assigns a value."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else []
    return [node.id for t in targets for node in ast.walk(t) if isinstance(node, ast.Name)]
