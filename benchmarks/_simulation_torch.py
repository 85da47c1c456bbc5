"""Run as a program by ``benchmarks.simulation``, in the interpreter that has torch.

``python _simulation_torch.py INPUT.npz OUTPUT.npz CALLS THREADS WAY`` with WAY ``eager`` or
``compiled``. One JSON object: ``compile``, seconds of the first call beyond a later one, and
``seconds`` and ``processor``, wall and processor seconds of each later call.
"""

import json
import sys
import time
from importlib import import_module

import numpy as np


def main(source: str, target: str, calls: int, threads: int, way: str) -> None:
    """Simulate, write the last state, print the times."""
    torch = import_module("torch")
    torch.set_num_threads(threads)
    with np.load(source) as stored:
        given = dict(stored)
    x0, query_key, value = (torch.tensor(given[name]) for name in ("x0", "query_key", "value"))
    alpha, steps = float(given["alpha"]), int(given["steps"])

    def step(x):  # type: ignore[no-untyped-def]
        logits = (x @ query_key) @ x.transpose(1, 2)
        y = x + alpha * (torch.softmax(logits, dim=-1) @ x) @ value.T
        return y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)

    if way == "compiled":
        step = torch.compile(step)

    def call() -> np.ndarray:
        with torch.no_grad():
            x = x0
            for _ in range(steps):
                x = step(x)
            return x.numpy()

    began = time.perf_counter()
    last = call()
    first, seconds, processor = time.perf_counter() - began, [], []
    for _ in range(calls):
        began, used = time.perf_counter(), time.process_time()
        last = call()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    np.savez(target, last=last)
    beyond = max(0.0, first - float(np.median(seconds)))
    print(json.dumps({"compile": beyond, "seconds": seconds, "processor": processor}))


if __name__ == "__main__":
    main(*sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
