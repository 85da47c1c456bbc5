"""Run as a program by ``benchmarks.scaling``: basin fractions on the devices that there are.

``python _devices.py SAMPLES``. One JSON object: ``seconds`` of a second run, ``compile``, what the
first one took beyond it, and ``fractions`` of the attractors.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp


def main(samples: int) -> None:
    """Run twice, print."""
    jax.config.update("jax_enable_x64", True)
    from pmt.dynamics import SingleHead
    from pmt.stability.basin import basin_fractions

    query_key = jnp.diag(jnp.array([2.0, 0.0, 0.0]))
    system = SingleHead(jnp.diag(jnp.array([1.0, 0.5, -0.3])), query_key, alpha=0.2)
    times, found = [], None
    for _ in range(2):
        began = time.perf_counter()
        found = basin_fractions(
            system,
            6,
            samples=samples,
            max_steps=4000,
            tolerance=1e-4,
            verdicts=False,
        )
        times.append(time.perf_counter() - began)
    fractions = {} if found is None else {a.name: a.share.fraction for a in found.attractors}
    answer = {"seconds": times[1], "compile": max(0.0, times[0] - times[1])}
    print(json.dumps(answer | {"fractions": fractions}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
