"""What `import pmt` offers: every name is there, documented, and the same as in its room."""

import typing

import pytest

import pmt
import pmt.dynamics

# As the architecture names them.
NAMES = ["LayerStack", "MultiHead", "Oja", "SingleHead", "run_to_equilibrium", "simulate"]
ROOMS = [
    "attention",
    "checkpoints",
    "dynamics",
    "equilibria",
    "experiments",
    "figures",
    "looped",
    "models",
    "report",
    "spectral",
    "sphere",
    "stability",
    "steering",
]


def test_the_surface_is_these_names_and_no_others():
    assert sorted(pmt.__all__) == sorted([*NAMES, *ROOMS, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_one_of_its_room_and_documented(name):
    assert getattr(pmt, name) is getattr(pmt.dynamics, name)
    assert len(getattr(pmt, name).__doc__.strip()) > 20


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_and_keeps_what_it_promises(room):
    module = getattr(pmt, room)
    assert module.__name__ == f"pmt.{room}"
    assert len(module.__doc__.strip()) > 20
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        is_alias = typing.get_origin(value) is not None
        if callable(value) and not is_alias:
            assert value.__doc__, f"{room}.{name} has no docstring"


def test_dir_shows_the_surface():
    assert set(pmt.__all__) <= set(dir(pmt))


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'pmt' has no attribute 'consensus'"):
        pmt.consensus  # noqa: B018


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("pmt") == pmt.__version__
