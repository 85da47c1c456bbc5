"""What a training run is: everything its result depends on."""

from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp

from pmt.errors import RequestError
from pmt.looped.blocks import CONFINING
from pmt.looped.norms import Norm, check_norm
from pmt.looped.objectives import Objective, check_objective
from pmt.looped.orbits import orbit_size
from pmt.looped.start import STARTS, Start


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the settings of arXiv 2606.00605, Sec. 5.

    Attributes:
      d, n, loops: dimension, columns, L.
      norm, objective: names of ``pmt.looped.NORMS`` and ``OBJECTIVES``.
      rate: learning rate.
      batch: samples a step; ``batch == train`` is gradient descent on all of a fixed set.
      train, test: sizes of the sets. With fresh samples, ``train // batch`` steps are an epoch.
      epochs: passes; a remainder of less than a batch is left out of each. With ``orbits`` an epoch
        has as many steps, and draws only ``drawn`` of the training samples for each.
      draw: ``fixed`` training samples in a new order each epoch, or ``fresh`` ones each step.
      orbits: a batch is made of a few samples and all their images under signed permutations, so
        that its gradient is as invariant as the population's; ``batch`` counts the images, see
        ``pmt.looped.orbits``.
      start, v, w, scale: initial weights, as ``pmt.looped.initial_weights``. The paper says
        v_0, w_0 > 0; one half is our choice.
      seed, seeds: independent runs from ``seed`` on: data, order and random weights differ.
      every: epochs between records; must divide ``epochs``.
      dtype: ``float32`` or ``float64``.
    """

    d: int = 16
    n: int = 32
    loops: int = 10
    norm: Norm = "l2"
    objective: Objective = "subspace"
    rate: float = 0.1
    batch: int = 128
    train: int = 10_000
    test: int = 2_000
    epochs: int = 2_000
    draw: str = "fixed"
    orbits: bool = False
    start: Start = "structured"
    v: float = 0.5
    w: float = 0.5
    scale: float = 0.1
    seed: int = 0
    seeds: int = 1
    every: int = 20
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_objective(self.objective)
        for name in ("d", "n", "loops", "batch", "train", "test", "epochs", "seeds", "every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.d < 2:
            raise RequestError("d is 1; the sphere of one dimension has no directions to choose")
        if self.batch > self.train:
            raise RequestError(
                f"a batch of {self.batch} is more than the {self.train} training samples"
            )
        if self.orbits and self.batch % orbit_size(self.d):
            raise RequestError(
                f"a batch of {self.batch} is not made of whole orbits, which have "
                f"{orbit_size(self.d)} samples for d = {self.d}; give a multiple of that"
            )
        if self.epochs % self.every:
            raise RequestError(
                f"records every {self.every} epochs do not divide {self.epochs} epochs"
            )
        if not 0 < self.rate < float("inf"):
            raise RequestError(f"the learning rate is {self.rate}; it must be positive and finite")
        if self.draw not in ("fixed", "fresh"):
            raise RequestError(f"the samples are {self.draw!r}; they are 'fixed' or 'fresh'")
        if self.start not in STARTS:
            raise RequestError(f"the start is {self.start!r}; it is one of {', '.join(STARTS)}")
        if self.dtype not in ("float32", "float64"):
            raise RequestError(f"the dtype is {self.dtype!r}; it is 'float32' or 'float64'")

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.train // self.batch

    @property
    def full_batch(self) -> bool:
        """Whether every step sees the whole training set: gradient descent."""
        return self.batch == self.train and self.draw == "fixed" and not self.orbits

    @property
    def drawn(self) -> int:
        """Samples that are drawn for a step: without their images."""
        return self.batch // orbit_size(self.d) if self.orbits else self.batch

    @property
    def confined(self) -> bool:
        """Whether no step can move anything but two blocks, see ``pmt.looped.blocks``."""
        return self.start == "structured" and self.norm in CONFINING

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch

    def document(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    def array_dtype(self) -> Any:
        """The dtype, refused where JAX would make it another.

        Raises:
          RequestError: float64 while JAX's 64-bit mode is off.
        """
        if self.dtype == "float64" and jnp.result_type(float) != jnp.dtype("float64"):
            raise RequestError("float64 needs JAX's 64-bit mode: run within jax.enable_x64(True)")
        return jnp.dtype(self.dtype)
