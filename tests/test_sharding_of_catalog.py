"""Every optimizer over the devices of a mesh, in a process with 8 devices."""

import pytest
from test_sharding import run


@pytest.mark.thorough
def test_walk_over_the_catalog():
    run("on_catalog.py")
