"""Strict numerics for every test, set here and not in the package.

`PMT_TEST_X64=0` runs the float32 pass: the tests marked `float32`, in single precision.
`HYPOTHESIS_PROFILE=large` draws many more examples, from `--hypothesis-seed`.
"""

import os
import signal

# Shells and nohup start background jobs with these ignored, which processes of the tests inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Before anything can import them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

X64 = os.environ.get("PMT_TEST_X64", "1") != "0"

STRICT = {
    "jax_enable_x64": X64,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
}

hypothesis.settings.register_profile(
    "ci",
    max_examples=50,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
)
hypothesis.settings.register_profile(
    "large",
    max_examples=2000,
    derandomize=False,
    database=None,
    deadline=None,
    print_blob=True,
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def set_strict():
    for name, value in STRICT.items():
        jax.config.update(name, value)
    jax.config.update("jax_default_device", None)


# For what a test file computes while it is collected.
set_strict()


@pytest.fixture(autouse=True)
def strict_numerics():
    """Strict in every test, whatever the one before it did (commands set the precision).

    And after it, for the fixtures of the next module, which are made before this one.
    """
    set_strict()
    yield
    set_strict()


def pytest_collection_modifyitems(config, items):
    if X64:
        return
    single = [item for item in items if item.get_closest_marker("float32")]
    config.hook.pytest_deselected(items=[item for item in items if item not in single])
    items[:] = single
