"""Run as a program: peak memory of an analysis layer by layer, and of loading the whole model.

Prints one JSON object, in bytes. The peak is the kernel's VmHWM, set back before each part, and
not ``ru_maxrss``, which a process inherits from the one that started it.
"""

import gc
import json
import os
import sys
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WORKERS = 2


class FirstOf:
    """The first few of some layers."""

    def __init__(self, layers, depth):
        self.depth, self.layer = depth, layers.layer


def memory(name):
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def peak_of(action):
    """How far the memory rises above what is held when the action begins."""
    gc.collect()
    RESET.write_text("5")
    before = memory("VmRSS")
    action()
    return memory("VmHWM") - before


def main(folder):
    # The bound does not depend on the machine.
    os.cpu_count = lambda: WORKERS
    import jax

    jax.config.update("jax_enable_x64", True)
    from pmt.experiments import AnalysisConfig, analyze
    from pmt.models import from_pretrained, open_layers

    config = AnalysisConfig(prompts=4, tokens=4, draws=1)

    def whole():
        from_pretrained(folder, dtype="float64").layer_stack()

    with open_layers(folder, dtype="float64") as layers:
        # What is imported and compiled once does not count; planes and lines compile apart.
        analyze(FirstOf(layers, 4), config)
        found = {"layer_by_layer": peak_of(lambda: analyze(layers, config))}
    found["whole"] = peak_of(whole)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
