"""Compiler options for functions that are compiled to be run a few times."""

from functools import lru_cache

import jax
import numpy as np


@lru_cache(maxsize=1)
def quick_options() -> dict[str, str | bool]:
    """XLA options for quick compilation on a CPU: those that this version of JAX knows."""
    if jax.default_backend() != "cpu":
        return {}
    wanted: dict[str, str | bool] = {
        "xla_backend_optimization_level": "0",
        "xla_cpu_use_fusion_emitters": False,
    }
    known: dict[str, str | bool] = {}
    for name, value in wanted.items():
        try:
            jax.jit(lambda x: x + 1, compiler_options={name: value})(np.float32(0))
        except (jax.errors.JaxRuntimeError, ValueError):
            continue
        known[name] = value
    return known
