"""Runs of a VQ-VAE and its prior that were never trained, for all tests of this folder."""

import pytest
import small
import untrained


@pytest.fixture(scope="module")  # its images are installed until it ends
def place(tmp_path_factory):
    """A folder with runs/KIND of every kind, and generated images in data/."""
    root = tmp_path_factory.mktemp("library")
    with untrained.workplace_with(root, small.compared()):
        yield root
