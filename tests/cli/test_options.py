"""The shared options refuse what makes no sense (faults 77, 84), each with one sentence."""

import json
import subprocess
import sys

import pytest

from pmt.cli.options import (
    Count,
    Device,
    Dtype,
    Finite,
    JsonFile,
    OutDirectory,
    Overwrite,
    Positive,
    Seed,
    at_most_one,
    number,
    start_backend,
)
from pmt.errors import RequestError


@pytest.fixture
def probe(pmt_with):
    seen = []

    def probe(
        alpha: Finite = 0.5,
        strength: Positive = 1.0,
        steps: Count = 10,
        seed: Seed = 0,
        dtype: Dtype = "float64",
        device: Device = None,
        json: JsonFile = None,
        out: OutDirectory = None,
        overwrite: Overwrite = False,
    ):
        """Remember what was given."""
        del overwrite
        seen.append((alpha, strength, steps, seed, dtype, device, json, out))

    run = pmt_with(probe)
    run.seen = seen
    return run


def test_defaults_and_values_arrive(probe, tmp_path):
    assert probe() == 0
    target, folder = tmp_path / "größe.json", tmp_path / "out"
    given = ["--alpha", "-1e-3", "--strength", "2", "--steps", "7", "--seed", "4294967295"]
    given += ["--dtype", "float32", "--device", "cpu", "--json", target, "--out", folder]
    assert probe(*map(str, given)) == 0
    assert probe.seen == [
        (0.5, 1.0, 10, 0, "float64", None, None, None),
        (-1e-3, 2.0, 7, 4294967295, "float32", "cpu", target, folder),
    ]
    assert list(tmp_path.iterdir()) == []


def test_fault_84_overwrite_without_a_folder(probe, one_sentence):
    assert probe("--overwrite") == 2
    assert one_sentence().startswith("--overwrite goes with --out; give the folder")
    # In any order.
    assert probe("--overwrite", "--out", "X") == probe("--out", "X", "--overwrite") == 0


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--alpha", "nan", "'nan' is not a finite number"),
        ("--alpha", "inf", "'inf' is not a finite number"),
        ("--alpha", "-inf", "'-inf' is not a finite number"),
        ("--alpha", "1e999", "'1e999' is not a finite number"),
        ("--alpha", "half", "'half' is not a finite number"),
        ("--alpha", "", "'' is not a finite number"),
        ("--strength", "0", "0 is not above 0"),
        ("--strength", "-1", "-1 is not above 0"),
        ("--steps", "0", "greater than or equal to 1"),
        ("--steps", "1.5", "integer"),
        ("--seed", "-1", "greater than or equal to 0"),
        ("--seed", "4294967296", "less than or equal to 4294967295"),
        ("--dtype", "float16", "not one of 'float32', 'float64'"),
        ("--device", "abacus", "not one of 'cpu', 'gpu', 'tpu'"),
        ("--json", "/", "it is a folder"),
        ("--json", "/proc/a", "cannot write /proc/a"),
        ("--json", "/no/such/a.json", "there is no folder /no/such"),
    ],
)
def test_nonsense_is_refused_before_any_work(probe, one_sentence, option, value, reason):
    assert probe(option, value) == 2
    assert probe.seen == []
    assert reason in one_sentence()


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"above": 0.0}, "1e-300", "0"),
        ({"at_least": 0.0}, "0", "-1e-300"),
        ({"below": 1.0}, "0.999", "1"),
        ({"at_most": 1.0}, "1", "1.001"),
    ],
)
def test_bounds_are_open_or_closed_as_they_say(bounds, inside, outside):
    import typer

    parse = number(**bounds)
    assert parse(inside) == float(inside)
    with pytest.raises(typer.BadParameter, match="is not"):
        parse(outside)


def test_one_of_several_options():
    assert at_most_one({"--tokens": None, "--prompts": None, "--fast": False}) is None
    assert at_most_one({"--tokens": 0, "--prompts": None}) == "--tokens"
    with pytest.raises(RequestError, match="--tokens and --prompts contradict each other"):
        at_most_one({"--tokens": "a", "--prompts": "b"})


def test_the_backend_starts_with_the_precision_that_was_asked_for():
    import jax.numpy as jnp

    assert start_backend("cpu", "float32") == "cpu"
    assert jnp.ones(3).dtype == jnp.float32
    assert start_backend(None, "float64") == "cpu"
    assert jnp.ones(3).dtype == jnp.float64


def test_a_device_that_is_not_there_is_a_wrong_request():
    # In a process of its own: the choice of platforms is made once.
    code = """
import json
from pmt.cli.options import start_backend
from pmt.errors import RequestError
answers = {}
for device in ("gpu", "tpu"):
    try:
        answers[device] = start_backend(device, "float64")
    except RequestError as error:
        answers[device] = str(error)
import jax
print(json.dumps([answers, sorted({device.platform for device in jax.local_devices()})]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=120
    )
    answers, platforms = json.loads(done.stdout.splitlines()[-1])
    for device, answer in answers.items():
        present = device in platforms
        assert answer == device if present else answer.startswith(f"there is no {device} device")
        assert present or answer.endswith("or give --device cpu")
        assert "\n" not in answer
