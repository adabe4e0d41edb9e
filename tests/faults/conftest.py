"""One API server for all tests of this folder. Each test has a system of its own on it."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from faults.control_plane import ControlPlane, MissingBinariesError, binaries

# The API server makes its own certificate at every start.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A running API server. Without its programs the tests are skipped; with CI=true they fail instead."""
    try:
        made = ControlPlane(tmp_path_factory.mktemp("control-plane"), binaries())
    except MissingBinariesError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(asyncio.run, made.start()).result()
        yield made
    finally:
        made.stop()
