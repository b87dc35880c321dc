"""Memory that was freed is there for the next step."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import sys
import torch
from vqvae_lightning.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    torch.zeros(10, 2**20)  # 40 MB: more than glibc ever keeps by itself

for _ in range(20):  # the first seven each leave a few bytes behind
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_step_maps_no_memory_that_the_step_before_had():
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", STEPS, how], check=True, capture_output=True
            ).stdout
        )
        for how in ("keep", "as it comes")
    }
    assert (
        faults["keep"] < 1000 < 50_000 < faults["as it comes"]
    )  # ten times 40 MB are 102,400 pages of 4 kB
