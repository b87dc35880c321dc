"""Memory that was freed is there for the next step, and is looked for once at the end."""

import platform
import subprocess
import sys

import pytest
from own_process import command


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_step_maps_no_memory_that_the_step_before_had():
    done = subprocess.run(command("page_faults"), check=True, capture_output=True)
    default, kept = map(int, done.stdout.split())
    # Ten times 40 MB are 102,400 pages of 4 kB.
    assert kept < 1000 < 50_000 < default


def test_a_command_looks_once_for_what_is_unreachable():
    program = """
import atexit, gc
from vqvae_lightning.cli import main

class Cycle:
    def __init__(self):
        self.me = self

    def __del__(self):
        print("finalized")

atexit.register(lambda: print("frozen", gc.get_freeze_count()))  # runs last
main(["settings"])
Cycle()
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    *_, finalized, frozen = done.stdout.splitlines()
    assert finalized == "finalized"
    assert int(frozen.split()[1]) > 1000
