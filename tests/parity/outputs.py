"""The half of `compare` that runs pmt: outputs of models to files, and their written copies.

A process of its own, so that torch and JAX need not be installed side by side::

    python -m tests.parity.outputs DIRECTORY

`DIRECTORY/jobs.json` maps a label to the folder of a checkpoint. For each, `LABEL.npz` with the
inputs lies there already, and this writes `LABEL-float32.npz` and `LABEL-float64.npz` with all that
the model puts out and `LABEL-written/`, the model saved again; or `LABEL-float32.error` and so on
where that failed.
"""

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import pmt

NAMES = ("hidden_states", "final", "logits", "pooled")


def outputs(model: object, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All that a model puts out, None left out."""
    segments = given.get("segments")
    output = model(given["ids"], present=given["present"], segments=segments)  # type: ignore[operator]
    found = {name: getattr(output, name) for name in NAMES}
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


def main() -> None:
    """Every job; an error is written down and the others go on."""
    work = Path(sys.argv[1])
    for label, folder in json.loads((work / "jobs.json").read_text()).items():
        given = dict(np.load(work / f"{label}.npz"))
        for dtype in ("float32", "float64"):
            with _noted(work / f"{label}-{dtype}.error"):
                model = pmt.models.from_pretrained(folder, dtype=dtype)
                np.savez(work / f"{label}-{dtype}.npz", **outputs(model, given))
        with _noted(work / f"{label}-written.error"):
            model = pmt.models.from_pretrained(folder, dtype="float32")
            pmt.models.save_pretrained(model, work / f"{label}-written")


@contextlib.contextmanager
def _noted(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception:
        path.write_text(traceback.format_exc())


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
