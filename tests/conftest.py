"""All tests share one store of solutions that is thrown away afterwards; the user's own is never touched."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_made_here = None


def pytest_configure(config):
    # workers of pytest-xdist inherit the folder, and share it, through the environment
    global _made_here
    if "PYTEST_XDIST_WORKER" not in os.environ:
        _made_here = tempfile.mkdtemp(prefix="emkernel-tests-")
        os.environ["EMKERNEL_STORE"] = _made_here
        os.environ["EMKERNEL_SHIPPED"] = "0"  # what is tested is the solver


def pytest_unconfigure(config):
    if _made_here is not None:
        shutil.rmtree(_made_here, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_store():
    """The folder of the store that the whole session shares."""
    return Path(os.environ["EMKERNEL_STORE"])
