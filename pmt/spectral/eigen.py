"""The principal eigenpair of layer matrices: all pairs or the leading ones, and what solves them.

Everything here runs on the host in float64, except where an accelerator is asked for.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from pmt.linalg import (
    Eigenpairs,
    Order,
    Solved,
    by_lapack,
    check_order,
    eigenpairs,
    one_thread_each,
    order_key,
    times_power_of_two,
)
from pmt.numerics import require_count
from pmt.spectral.accelerator import Refused, eigenpairs_on
from pmt.spectral.krylov import NotFound, Pairs, arnoldi
from pmt.spectral.mixed import solve_mixed
from pmt.spectral.operator import LayerOperator, layer_operators
from pmt.spectral.spectrum import (
    NEARLY_EQUAL,
    Leading,
    Method,
    Principal,
    Spectrum,
    judged,
    nearly_equal,
)

DENSE = 512
"""Up to this d LAPACK solves the whole problem as fast as a Krylov method finds the first pairs."""


def principal(
    what: Any,
    order: Order = "real",
    alpha: float | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    leading: int | None = None,
    accelerator: Any = None,
) -> Any:
    """The principal eigenpair of every layer matrix, solved side by side on all cores.

    Args:
      what: A ``LayerStack`` or an array ``(layers, d, d)``: the answer is a tuple, one entry a
        layer. An autonomous map (``Oja``, ``SingleHead``, ``MultiHead``) or a matrix ``(d, d)``:
        the answer is one ``Principal``.
      order: ``"real"`` (the paper), ``"skip"`` or ``"modulus"``: see ``pmt.linalg.eigenpairs``.
      alpha: Step size in the order ``"skip"``; by default each system's own, and 1 for matrices.
      progress: Called with 1 for every layer that is done, from any thread.
      leading: Only so many eigenpairs, as ``Leading``, by a Krylov method: see `solve_leading`.
      accelerator: A `jax.Device` to solve on, in float64: see `pmt.spectral.accelerator`. LAPACK
        where its answer does not pass the host's check; ``fallback`` then says why. Not with
        ``leading``, which runs on the host.

    Raises:
      RequestError: Not square, not finite (naming the entry), unknown order, a ``leading`` below 1
        or with an accelerator.
    """
    check_order(order, 1.0 if alpha is None else alpha)
    if leading is not None:
        require_count("leading", leading, 1)
        if accelerator is not None:
            message = "leading pairs are found on the host; leave out leading, or the accelerator"
            raise RequestError(message)
    solve: Callable[[Any, float], Any]
    if leading is None:
        matrices = layer_matrix(what)
        if matrices.ndim not in (2, 3):
            message = f"the matrices have shape {matrices.shape}; expected (d, d) or (layers, d, d)"
            raise RequestError(message)
        single = matrices.ndim == 2
        problems = list(matrices[None] if single else matrices)
        solve = partial(solve_all, order=order, accelerator=accelerator)
    else:
        problems = list(layer_operators(what))
        single = not isinstance(what, LayerStack) and np.ndim(_first_array(what)) < 3
        solve = partial(solve_leading, count=leading, order=order)
    steps = _step_sizes(what, alpha, len(problems))

    def one(index: int) -> Any:
        answer = solve(problems[index], alpha=steps[index])
        if progress is not None:
            progress(1)
        return answer

    if single:
        return one(0)
    with one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(one, range(len(problems))))


def solve_all(
    matrix: Any, order: Order = "real", alpha: float = 1.0, accelerator: Any = None
) -> Principal:
    """All eigenpairs of one matrix ``(d, d)``, on an accelerator if one is given.

    On the host by LAPACK, in single precision and refined, or in double precision where that does
    not give every pair: see `pmt.spectral.mixed`.

    Args:
      matrix, order, alpha: as for `pmt.linalg.eigenpairs`.
      accelerator: as for ``principal``.
    """
    method: Method = "lapack"
    refused = None
    if accelerator is None:
        pairs = eigenpairs(matrix, order, alpha, _on_host)
    else:
        try:
            pairs, method = eigenpairs_on(accelerator, matrix, order, alpha), "accelerator"
        except Refused as why:
            pairs, refused = eigenpairs(matrix, order, alpha, _on_host), str(why)
    exact = np.asarray(matrix, float)
    common = judged(pairs, order, alpha, lambda: exact)
    return Principal(**common, method=method, fallback=refused, pairs=pairs)


def _on_host(f: np.ndarray) -> Solved:
    found = solve_mixed(f)
    return by_lapack(f) if found is None else found


def solve_leading(
    operator: LayerOperator, count: int, order: Order = "real", alpha: float = 1.0
) -> Leading:
    """The leading eigenpairs of one F, by a Krylov method where it finds them beyond doubt.

    All three orders are exact: see `pmt.spectral.krylov`. As many pairs are computed as the gap and
    the case need, also where ``count`` is less; where eigenvalues crowd behind the first one, more.
    LAPACK solves the whole problem where d is small, where the Krylov method is in doubt (a
    repeated or defective eigenvalue, no convergence) and where most of the spectrum is needed;
    ``method`` and, except for a small d, ``fallback`` say so.

    Args:
      operator: F, see `pmt.spectral.operator.layer_operators`.
      count: how many pairs are returned; one more where that would cut a conjugate pair, and as
        many as Case 3 needs.
      order, alpha: as for `pmt.linalg.eigenpairs`.
    """
    # lam_1 with its conjugate, and more: the gap, and whether another real one is close.
    wanted, refused = max(count, 2) + 6, None
    if operator.d > DENSE:
        try:
            found = arnoldi(operator, wanted, order, alpha, partial(_may_go_on, order, alpha))
            pairs = _in_full_size(found, operator.exponent)
            common = judged(
                pairs, order, alpha, lambda: np.ldexp(operator.matrix(), operator.exponent)
            )
            return _first(common, pairs.vectors, count, "krylov", None, found.products)
        except NotFound as why:
            refused = str(why)
    matrix = np.ldexp(operator.matrix(), operator.exponent)
    whole = solve_all(matrix, order, alpha)
    common = {each.name: getattr(whole, each.name) for each in fields(Spectrum)}
    common = {name: value for name, value in common.items() if name not in ("method", "fallback")}
    return _first(common, whole.pairs.vectors, count, "lapack", refused, 0)


def layer_matrix(what: Any) -> np.ndarray:
    """F = Σ_h O_h V_h in float64 on the host: ``(d, d)``, or ``(layers, d, d)`` for a stack.

    The product too is taken in float64, so that the spectrum does not depend on the precision of
    the run; arrays are taken to be layer matrices already.
    """
    if isinstance(what, LayerStack):
        return layer_matrix(what.layers)
    if isinstance(what, MultiHead):
        output, value = (np.asarray(a, np.float64) for a in (what.output, what.value))
        # (.., h, d, k) and (.., h, k, d) side by side as (.., d, hk) and (.., hk, d).
        wide = np.moveaxis(output, -3, -2).reshape(*output.shape[:-3], output.shape[-2], -1)
        tall = value.reshape(*value.shape[:-3], -1, value.shape[-1])
        return wide @ tall
    if isinstance(what, Oja | SingleHead):
        return np.asarray(what.value, np.float64)
    return np.asarray(what)


def _step_sizes(what: Any, alpha: float | None, layers: int) -> list[float]:
    if alpha is None:
        system = what.layers if isinstance(what, LayerStack) else what
        own = np.asarray(getattr(system, "alpha", 1.0), np.float64)
        return [float(a) for a in np.broadcast_to(own, (layers,))]
    return [float(alpha)] * layers


def _first_array(what: Any) -> Any:
    """The array whose leading axis, if it has one too many, counts layers."""
    if isinstance(what, MultiHead):
        return np.asarray(what.output)[..., 0]
    return what.value if isinstance(what, Oja | SingleHead) else what


def _in_full_size(found: Pairs, exponent: int) -> Eigenpairs:
    values = times_power_of_two(found.values, exponent)
    return Eigenpairs(values, found.vectors, found.residuals, found.conditions)


def _may_go_on(order: Order, alpha: float, values: np.ndarray, size: float) -> bool:
    """Whether what follows the last value may still tie with the first or make it Case 3."""
    first = values[0]
    keys = order_key(values[[0, -1]], order, alpha)
    width = abs(alpha) if order == "skip" else 1.0
    reach = 1e-12 * (1 + width * size if order == "skip" else size)
    if first.imag == 0 and nearly_equal(values) is None:
        reach += NEARLY_EQUAL * width * abs(first)
    return bool(keys[0] - keys[1] <= reach)


def _first(
    common: dict[str, Any],
    vectors: np.ndarray,
    count: int,
    method: Method,
    refused: str | None,
    products: int,
) -> Leading:
    """The first ``count`` of the pairs, and what goes with them, without the larger arrays."""
    values = common["values"]
    kept = min(len(values), max(count, 1 if common["second"] is None else common["second"] + 1))
    if values[kept - 1].imag > 0:
        kept += 1
    cut = {name: common[name][:kept].copy() for name in ("values", "residuals", "conditions")}
    return Leading(
        **{**common, **cut},
        vectors=vectors[:, :kept].copy(),
        method=method,
        fallback=refused,
        products=products,
    )
