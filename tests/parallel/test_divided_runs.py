"""Maps, radii and phase diagrams divided between processes: in each of them the numbers of one."""

import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from pmt.dynamics import Oja
from pmt.equilibria import consensus
from pmt.errors import Interrupted, RequestError
from pmt.parallel.hosts import Hosts
from pmt.parallel.store import UnitStore
from pmt.parallel.workers import Workers
from pmt.stability.basin_map import slice_map, sphere_map
from pmt.stability.escape import escape_radius
from pmt.stability.phase import phase_diagram
from pmt.stability.spread import _parts
from tests.parallel.tools import Keys

# Shapes of one program; each question makes several units.
CHUNK = {"chunk": 32, "max_steps": 512, "tolerance": 1e-4}
POWER = Oja(jnp.diag(jnp.array([1.0, 0.4, 0.2])), alpha=0.5)


class Polite(Hosts):
    """Leaves the first unit to another process."""

    def claim(self, units):
        deadline = time.monotonic() + 10
        while self._key("claimed") not in self.client.held and time.monotonic() < deadline:
            time.sleep(0.01)
        return super().claim(units)


def sphere(**more):
    return sphere_map(POWER, jnp.zeros((0, 3)), resolution=16, **CHUNK, **more)


def slice_(**more):
    x, first, second = np.eye(3)[:, None]
    return slice_map(POWER, x, first + second, second, resolution=16, **CHUNK, **more)


def lost(**more):
    x = consensus(POWER, 0, 1).x
    return escape_radius(POWER, x, directions=150, scan=3, bisections=1, **CHUNK, **more)


def phase(**more):
    # All of them end soon, in two units.
    grid = jnp.linspace(3.0, 5.0, 5), jnp.array([0.1])
    return phase_diagram(*grid, split=(1, 1), others=(), alpha=0.9, samples=12, **more)


def same(one, other):
    """Attractors are compared by name, share and state."""
    for name, value in vars(one).items():
        mine = vars(other)[name]
        if name == "attractors":
            assert [each.as_dict() for each in mine] == [each.as_dict() for each in value]
        else:
            np.testing.assert_array_equal(mine, value, err_msg=name)


@pytest.mark.parametrize("question", [sphere, slice_, lost, phase])
def test_every_process_gets_the_numbers_of_one_and_all_take_part(question, tmp_path):
    """Fault 80; and a run that was stopped goes on to them, in one process."""
    keys, answers, ran = Keys(), {}, {}
    found = question()

    def process(index):
        hosts = (Polite, Hosts)[index](index, 2, keys)
        try:
            answers[index] = question(workers=Workers(hosts=hosts))
            ran[index] = hosts.given
        except BaseException as error:
            answers[index] = error

    threads = [threading.Thread(target=process, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for index in range(2):
        same(found, answers[index])
    # Process 0 hands nothing to itself.
    assert ran[0] == 0 and ran[1] > 0

    stopped, request = [], {"seed": 1}

    def report(_done):
        if len(list(tmp_path.glob("*.npz"))) == 1:
            stopped.append(True)
            raise Interrupted("killed")

    with pytest.raises(Interrupted):
        question(workers=Workers(store=UnitStore(tmp_path, request)), progress=report)
    (kept,) = tmp_path.glob("*.npz")
    before = kept.stat().st_mtime_ns
    same(found, question(workers=Workers(store=UnitStore(tmp_path, request))))
    assert stopped and kept.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*.npz"))) > 1


def test_a_chunk_that_makes_no_sense_is_refused():
    with pytest.raises(RequestError, match="chunk"):
        escape_radius(POWER, consensus(POWER, 0, 1).x, chunk=0)


def test_units_are_told_apart_in_their_order_whoever_was_first():
    """Which runs a unit leaves over is known by this order, when a stopped run is gone on with."""
    together = {"64/x": np.array(1), "0/x": np.array(0), "128/x": np.array(2), "0/y": np.array(3)}
    assert _parts(together) == [{"x": 0, "y": 3}, {"x": 1}, {"x": 2}]
