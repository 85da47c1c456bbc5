"""Peak memory of an analysis: near one layer and its eigenproblems, whatever the model's size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loading import write_gpt2
from tests.experiments.peak_memory import RESET, WORKERS

ROOT = Path(__file__).parents[2]
LAYERS, D = 24, 256
MEGABYTE = 2**20


@pytest.fixture
def large(tmp_path):
    """A GPT-2 of 24 layers, of which attention is less than a third."""
    write_gpt2(tmp_path, layers=LAYERS, d=D, heads=2, vocabulary=8192, positions=16)
    return tmp_path


@pytest.mark.skipif(not os.access(RESET, os.W_OK), reason="peak memory is read as Linux tells it")
def test_it_is_near_one_layer_and_its_eigenproblems_and_not_that_of_the_model(large):
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiments.peak_memory", large],
        # Freed arrays go back at once, so that the peak is that of what is held.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak = json.loads(done.stdout)
    matrix = 8 * D * D
    layer, attention = 4 * matrix, 4 * matrix * LAYERS
    # The layer's tensors, as they are read and as the rotated null has them; an eigenproblem takes
    # about twelve arrays as large as F; and a little for what the interpreter does.
    bound = 3 * layer + 12 * matrix * WORKERS + 5 * MEGABYTE
    assert 2 * bound < attention
    assert peak["layer_by_layer"] < bound
    # The test can tell: the whole model has to be seen in it.
    assert peak["whole"] > attention > bound
