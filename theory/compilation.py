"""Compiler options for functions whose compilation takes longer than their runs."""

from functools import lru_cache

import jax
import numpy as np

WORTH_OPTIMIZING = 10_000
"""Evaluations of an instance from which optimized code is sooner done, compilation included."""


@lru_cache(maxsize=2)
def quick_options(optimized: bool = False) -> dict[str, str | bool]:
    """XLA options for quick compilation on a CPU: those that this version of JAX knows.

    On a two-core Xeon a conclusion compiles in half of the default's time if ``optimized``, to code
    as fast, and in a third of it if not, to code that takes two to four times as long. Each program
    is compiled in one piece: in 32, the default, it holds about 100 maps of memory in place of 30,
    and Linux gives a process 65,530, which all statements together would use up.
    """
    if jax.default_backend() != "cpu":
        return {}
    wanted: dict[str, str | bool] = {
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": "1",
    }
    if not optimized:
        wanted["xla_backend_optimization_level"] = "0"
    known: dict[str, str | bool] = {}
    for name, value in wanted.items():
        try:
            jax.jit(lambda x: x + 1, compiler_options={name: value})(np.float32(0))
        except (jax.errors.JaxRuntimeError, ValueError):
            continue
        known[name] = value
    return known
