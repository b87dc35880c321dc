"""Memory that was freed is there for the next step."""

import platform
import subprocess

import pytest
from own_process import command


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_step_maps_no_memory_that_the_step_before_had():
    done = subprocess.run(command("page_faults"), check=True, capture_output=True)
    default, kept = map(int, done.stdout.split())
    # Ten times 40 MB are 102,400 pages of 4 kB.
    assert kept < 1000 < 50_000 < default
