"""Units to run, two devices of one, and processes that are threads of this one."""

import threading

import jax
import jax.numpy as jnp
import numpy as np

from pmt.parallel.hosts import Hosts
from pmt.parallel.units import split_units
from pmt.parallel.workers import Workers

UNITS = split_units(0, 20, 3)


def ignore(_done):
    pass


def squares(shared, unit, report):
    report(unit.size)
    # A new number has the default precision.
    weight = jnp.asarray(np.ones(unit.size))
    return {"sum": np.asarray(jnp.sum(weight * shared[unit.first : unit.last] ** 2))}


def add(one, other):
    return {"sum": np.asarray(one["sum"] + other["sum"])}


def twice():
    """Two threads, as for two devices."""
    return jax.local_devices()[:1] * 2


class Keys:
    """The runtime's store of keys, for processes that are threads of this one."""

    def __init__(self):
        self.held, self.lock = {}, threading.Lock()

    def key_value_set_bytes(self, key, value):
        with self.lock:
            if key in self.held:
                raise jax.errors.JaxRuntimeError(f"ALREADY_EXISTS: key {key} already exists.")
            self.held[key] = value

    def key_value_set(self, key, value):
        self.key_value_set_bytes(key, value.encode())

    def key_value_try_get_bytes(self, key):
        with self.lock:
            if key not in self.held:
                raise jax.errors.JaxRuntimeError(f"NOT_FOUND: Config key {key} not found.")
            return self.held[key]

    def key_value_increment(self, key, by):
        with self.lock:
            self.held[key] = str(int(self.held.get(key, b"0")) + by).encode()
            return int(self.held[key])

    def key_value_dir_get_bytes(self, prefix):
        with self.lock:
            return [(key, value) for key, value in self.held.items() if key.startswith(prefix)]

    def key_value_delete(self, key):
        """Of a folder all that is in it."""
        with self.lock:
            for each in [name for name in self.held if f"{name}/".startswith(f"{key}/")]:
                del self.held[each]


def processes(work, count=3, report=ignore, keys=None, ended=None):
    """What `count` processes get; an exception where one was raised."""
    keys, answers = keys or Keys(), [None] * count

    def process(index):
        workers = Workers(hosts=Hosts(index, count, keys))
        try:
            for _ in range(2):
                answers[index] = workers.reduce(
                    "a", work, jnp.arange(20.0), UNITS, add, report, ended
                )
        except BaseException as error:
            answers[index] = error

    threads = [
        threading.Thread(target=process, args=(index,), daemon=True) for index in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return answers
