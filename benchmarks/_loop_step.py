"""Run as a program in a process of its own: SGD steps of the looped transformer, timed.

``python benchmarks/_loop_step.py WAY INPUT.npz OUTPUT.npz CALLS`` with WAY ``blocks`` (ours from a
structured start), ``full`` (ours from any start), ``plain`` (the same model written down with
``scan`` and ``vmap``, compiled), ``torch`` or ``torch-blocks``; these run in the peer's
interpreter, so nothing else is imported at the top. The input holds the weights and one batch;
every call makes ``steps`` steps from the same start, and the output holds V and W then.

One JSON object: ``compile``, seconds of the first call beyond a later one; ``seconds`` and
``processor``, wall and processor seconds of each later call.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def full(given: dict[str, Any]) -> Callable[[], Any]:
    """``pmt.looped``, all entries of V and W."""
    from pmt.looped import apply

    return _jax(given, apply)


def blocks(given: dict[str, Any]) -> Callable[[], Any]:
    """``pmt.looped``, the entries that a structured start moves."""
    from pmt.looped import apply_blocks

    return _jax(given, apply_blocks)


def plain(given: dict[str, Any]) -> Callable[[], Any]:
    """One sample's loops as a scan, the batch by vmap, the derivative by autodiff."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def apply(weights: Any, data: Any, query: Any, loops: int, norm: str) -> Any:
        del norm
        d = query.shape[-1]

        def one(x: Any, a: Any) -> Any:
            e = jnp.zeros((2 * d, x.shape[0] + 1), x.dtype)
            e = e.at[:d, :-1].set(x.T).at[d:, -1].set(a)

            def body(e: Any, _: None) -> tuple[Any, None]:
                e = e + weights.value @ (e @ (e.T @ (weights.key @ e)))
                return e / jnp.linalg.norm(e, axis=0, keepdims=True), None

            return lax.scan(body, e, None, length=loops)[0][d:, -1]

        return jax.vmap(one)(data, query)

    return _jax(given, apply)


def _jax(given: dict[str, Any], apply: Any) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp
    from jax import lax

    from pmt.looped import Samples, Weights, sample_losses

    batch = Samples(*(jnp.asarray(given[name]) for name in ("data", "query", "leading")))
    gain = jnp.ones(given["value"].shape[0], given["value"].dtype)
    start = Weights(jnp.asarray(given["value"]), jnp.asarray(given["key"]), gain)
    loops, rate, steps = int(given["loops"]), float(given["rate"]), int(given["steps"])

    def loss(weights: Any, batch: Any) -> Any:
        y = apply(weights, batch.data, batch.query, loops, "l2")
        return jnp.mean(sample_losses("subspace", y, batch))

    @jax.jit
    def run(start: Any, batch: Any) -> Any:
        def step(weights: Any, _: None) -> tuple[Any, None]:
            gradient = jax.grad(loss)(weights, batch)
            return jax.tree.map(lambda w, g: w - rate * g, weights, gradient), None

        return lax.scan(step, start, None, length=steps)[0]

    def call() -> Any:
        weights = jax.block_until_ready(run(start, batch))
        return np.asarray(weights.value), np.asarray(weights.key)

    return call


def torch(given: dict[str, Any]) -> Callable[[], Any]:
    """PyTorch: the batch as a leading axis, the derivative by autograd."""

    def prepare(torch: Any, data: Any, query: Any) -> Callable[[Any, Any], Any]:
        batch, n, d = data.shape
        start = torch.zeros(batch, 2 * d, n + 1)
        start[:, :d, :-1] = data.transpose(1, 2)
        start[:, d:, -1] = query

        def model(value: Any, key: Any) -> Any:
            e = start
            for _ in range(int(given["loops"])):
                e = e + value @ (e @ (e.transpose(1, 2) @ (key @ e)))
                e = e / torch.linalg.vector_norm(e, dim=1, keepdim=True)
            return e[:, d:, -1]

        return model

    return _torch(given, prepare)


def torch_blocks(given: dict[str, Any]) -> Callable[[], Any]:
    """PyTorch, the entries that a structured start moves."""

    def prepare(torch: Any, data: Any, query: Any) -> Callable[[Any, Any], Any]:
        d = query.shape[-1]

        def model(value: Any, key: Any) -> Any:
            y = query
            for _ in range(int(given["loops"])):
                along = torch.bmm(data, (y @ key[:d, d:].T)[:, :, None])
                y = y + torch.bmm(data.mT, along)[:, :, 0] @ value[d:, :d].T
                y = y / torch.linalg.vector_norm(y, dim=1, keepdim=True)
            return y

        return model

    return _torch(given, prepare)


def _torch(given: dict[str, Any], prepare: Callable[..., Any]) -> Callable[[], Any]:
    # Not the function of that name.
    from importlib import import_module

    torch = import_module("torch")
    data, query, leading = (torch.tensor(given[name]) for name in ("data", "query", "leading"))
    model, rate, steps = prepare(torch, data, query), float(given["rate"]), int(given["steps"])

    def call() -> Any:
        value = torch.tensor(given["value"], requires_grad=True)
        key = torch.tensor(given["key"], requires_grad=True)
        optimizer = torch.optim.SGD([value, key], lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            y = model(value, key)
            inside = torch.einsum("bi,bir->br", y, leading)
            outside = y - torch.einsum("br,bir->bi", inside, leading)
            (outside**2).sum(1).mean().backward()
            optimizer.step()
        return value.detach().numpy(), key.detach().numpy()

    return call


WAYS = {
    "blocks": blocks,
    "full": full,
    "plain": plain,
    "torch": torch,
    "torch-blocks": torch_blocks,
}


def main(way: str, source: str, target: str, calls: int) -> None:
    """Make the calls, write the weights of the last, print the times."""
    with np.load(source) as stored:
        given = dict(stored)
    call = WAYS[way](given)
    began = time.perf_counter()
    value, key = call()
    first, seconds, processor = time.perf_counter() - began, [], []
    for _ in range(calls):
        began, used = time.perf_counter(), time.process_time()
        value, key = call()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    np.savez(target, value=value, key=key)
    beyond = max(0.0, first - float(np.median(seconds)))
    print(json.dumps({"compile": beyond, "seconds": seconds, "processor": processor}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
