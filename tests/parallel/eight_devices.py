"""Run by a test in a process of its own that has eight devices: prints which numbers differ."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from pmt.dynamics import SingleHead
from pmt.equilibria import consensus
from pmt.experiments import AnalysisConfig, analysis_json, analyze, prompt_units
from pmt.experiments.stripped import Stripped
from pmt.parallel.units import split_units
from pmt.parallel.workers import Workers
from pmt.stability.basin import attractors_reached, basin_fractions, sample_starts
from pmt.stability.escape import escape_radius
from pmt.stability.phase import phase_diagram
from tests.experiments.systems import random_stack

# Ten units of 64 runs and a part of one; each leaves its last two runs to a unit of such runs.
OPTIONS = {"chunk": 32, "max_steps": 512, "verdicts": False}
SAMPLES = 660
# Every layer on a device of its own, which takes the tokens through those before, or every prompt.
ANALYSIS = AnalysisConfig(prompts=3, tokens=4, draws=1)


def differing(devices: list[jax.Device]) -> list[str]:
    """What is not equal bit by bit on one device and on all."""
    system = SingleHead(
        jnp.diag(jnp.array([1.0, -0.5])), jnp.diag(jnp.array([2.0, 0.0])), alpha=0.2
    )
    stack, fractions, reached, measured = random_stack(d=8), [], [], []
    usual = prompt_units.CHUNK_TOKENS
    radii, cells = [], []
    for some in (devices[:1], devices):
        workers = Workers(some)
        fractions.append(
            basin_fractions(system, 2, samples=SAMPLES, workers=workers, **OPTIONS).as_dict()
        )
        x0 = sample_starts(1, np.arange(SAMPLES), 2, 2)
        reached.append(attractors_reached(system, x0, workers=workers, **OPTIONS))
        radii.append(
            escape_radius(
                system,
                consensus(system, 0, 2).x,
                directions=160,
                reach=3.0,
                scan=2,
                bisections=1,
                chunk=32,
                max_steps=512,
                workers=workers,
            )
        )
        cells.append(
            phase_diagram(
                # All runs end soon.
                jnp.linspace(3.0, 5.0, 5),
                jnp.array([0.0, 0.1]),
                split=(1, 1),
                others=(),
                alpha=0.9,
                samples=32,
                workers=workers,
            )
        )
        prompt_units.CHUNK_TOKENS = 4
        measured.append(said_of(stack, workers))
        prompt_units.CHUNK_TOKENS = usual
    used, plain = plain_call(stack)
    found = {
        "fractions": fractions[0] == fractions[1] and len(fractions[0]["attractors"]) >= 3,
        "labels": np.array_equal(reached[0].label, reached[1].label),
        "states": reached[0].states.tobytes() == reached[1].states.tobytes(),
        "radii": same_fields(*radii) and np.isfinite(radii[0].lost).any(),
        "cells": same_fields(*cells) and len(np.unique(cells[0].fraction)) > 3,
        "prompts": measured[0] == measured[1],
        "layers": plain == said_of(stack, Workers(devices[:1])),
        "used": used != set(),
        "placed": moved(jax.device_put(stack, devices[0]), devices[3]) == {devices[3]},
        "dtype": reached[1].states.dtype == np.float64,
    }
    return [name for name, same in found.items() if not same]


def same_fields(one, other) -> bool:
    """Whether all arrays and numbers of two results are equal."""
    return all(np.array_equal(value, vars(other)[name]) for name, value in vars(one).items())


def said_of(stack, workers=None):
    return json.dumps(analysis_json(analyze(stack, ANALYSIS, workers=workers)))


def plain_call(stack):
    """Where the stage is taken to if nobody says which devices there are, and what is found."""
    found, real = set(), Stripped.on

    def seen(self, device):
        found.add(device)
        return real(self, device)

    Stripped.on = seen
    try:
        return found, said_of(stack)
    finally:
        Stripped.on = real


def moved(stack, device):
    """Where a layer's arrays are in a thread of that device, and the tokens after it."""
    with jax.default_device(device):
        stage = Stripped(stack, ANALYSIS, None, None).on(device)
        layer = stage.layer(1)
        x = stage.advance(1, layer, stage.start(layer), 0)
    return {leaf.devices().pop() for leaf in jax.tree.leaves((layer, x))}


def devices_at_work(devices: list[jax.Device]) -> int:
    """How many devices have run units."""

    def work(shared, unit, report):
        del unit, report
        time.sleep(0.02)
        return {"device": np.array((shared + jnp.ones(())).devices().pop().id)}

    units = split_units(0, 80, 1)
    found = Workers(devices).collect(work, jnp.zeros(()), units, lambda _done: None)
    return len({int(each["device"]) for each in found})


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    all_devices = jax.local_devices()
    answer = {"differing": differing(all_devices), "at work": devices_at_work(all_devices)}
    print(json.dumps(answer))
