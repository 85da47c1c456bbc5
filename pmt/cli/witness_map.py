"""What an instance of a statement says of a map and a point, from the fields that it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from theory.results import Evaluated
    from theory.statement import Shape, Statement


@dataclass(frozen=True)
class Map:
    """The map of an instance, for JAX and as a NumPy transcription, and the point it is about.

    Attributes:
      system: one of ``pmt.dynamics``.
      step: ``(n, d) -> (n, d)``, plain NumPy.
      layer_matrix: F, (d, d).
      point: (n, d), or None where the instance names none.
      n: tokens.
    """

    system: Any
    step: Any
    layer_matrix: "np.ndarray"
    point: "np.ndarray | None"
    n: int


def read_map(statement: "Statement", shape: "Shape", case: Mapping[str, Any]) -> Map | None:
    """The map that an instance describes by its fields; None where they describe none.

    Softmax attention where there are logits (``query_key``, ``query_keys``); uniform attention
    where there are none and either the statement is about the Oja system or nothing depends on
    logits, as with equal tokens.
    """
    import jax.numpy as jnp
    import numpy as np

    from pmt.dynamics import MultiHead, SingleHead
    from theory import instances, oracles

    point = point_of(shape, case)
    alpha = case.get("alpha")
    if alpha is None or np.ndim(alpha) != 0:
        return None
    mask = instances.mask_of(shape)
    if "heads" in case and "query_keys" in case:
        heads, logits = np.asarray(case["heads"]), np.asarray(case["query_keys"])
        system: Any = MultiHead.from_maps(
            value_output=jnp.asarray(heads),
            query_key=jnp.asarray(logits),
            alpha=jnp.asarray(alpha),
            mask=mask,
        )
        step = oracles.multi_head(heads, logits, float(alpha), shape.mask)
        return Map(system, step, heads.sum(axis=0), point, shape.n)
    if "value" not in case and not {"frame", "eigenvalues"} <= case.keys():
        return None
    value = np.asarray(instances.value_matrix({k: jnp.asarray(v) for k, v in case.items()}))
    # Equal tokens see uniform attention whatever the logits; other points need to be told them.
    if "query_key" not in case and (
        point is None or ("Oja" not in statement.text and np.ptp(point, axis=0).any())
    ):
        return None
    logits = np.asarray(case.get("query_key", np.zeros_like(value)))
    # Without logits this is the Oja system, and all instances of a size share what is compiled.
    system = SingleHead(
        value=jnp.asarray(value),
        query_key=jnp.asarray(logits),
        alpha=jnp.asarray(alpha),
        mask=mask,
    )
    return Map(
        system, oracles.single_head(value, logits, float(alpha), shape.mask), value, point, shape.n
    )


def thumbnail(statement: "Statement", at: "Evaluated") -> dict[str, Any] | None:
    """The tokens of an instance on the circle or the sphere, projected; None for other d.

    Returns:
      ``sphere`` (bool), ``axes``: [x, y] of the tips of real eigenvectors, and ``tokens``: x, y
      and whether it is on the near side; y points up.
    """
    import numpy as np

    from pmt.figures.sphere import choose_view

    point = point_of(at.shape, at.case)
    if point is None or point.shape[1] not in (2, 3):
        return None
    found = read_map(statement, at.shape, at.case)
    axes = np.zeros((point.shape[1], 0)) if found is None else real_axes(found.layer_matrix)[0]
    if point.shape[1] == 2:
        flat, near, tips = point, np.ones(len(point), bool), axes.T
    else:
        view = choose_view(point, axes)
        flat, depth = view.project(point)
        near, tips = depth >= -1e-9, view.project(axes.T)[0]
    return {
        "sphere": point.shape[1] == 3,
        "axes": [[float(a), float(b)] for a, b in tips],
        "tokens": [
            {"x": float(a), "y": float(b), "near": bool(c)}
            for (a, b), c in zip(flat, near, strict=True)
        ],
    }


def point_of(shape: "Shape", case: Mapping[str, Any]) -> "np.ndarray | None":
    """The state (n, d) that an instance is about; None where it names none."""
    import numpy as np

    if "layers" in case:
        return None
    if "x" in case and np.ndim(case["x"]) == 2:
        return np.asarray(case["x"], np.float64)
    if "signs" in case and "direction" in case:
        return np.outer(np.asarray(case["signs"]), np.asarray(case["direction"]))
    if "direction" in case and "value" in case:
        return np.tile(np.asarray(case["direction"], np.float64), (shape.n, 1))
    return None


def real_axes(matrix: "np.ndarray") -> "tuple[np.ndarray, list[str]]":
    """Unit eigenvectors of real eigenvalues, decreasing, and their names."""
    import numpy as np

    symmetric = np.array_equal(matrix, matrix.T)
    values, vectors = np.linalg.eigh(matrix) if symmetric else np.linalg.eig(matrix)
    order = np.argsort(-values.real, kind="stable")
    kept = [k for k in order if abs(values[k].imag) < 1e-12]
    names = [f"$v_{list(order).index(k) + 1}$" for k in kept]
    return np.asarray(vectors[:, kept].real), names
