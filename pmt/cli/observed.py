"""What is measured along a run: alignment with eigendirections, and the distance of tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pmt.cli import answers
from pmt.cli.running import Run

if TYPE_CHECKING:
    from pmt.figures.trajectory import Trajectory


@dataclass(frozen=True)
class Observed:
    """Observables at the recorded steps, NumPy.

    Attributes:
      steps: (r,), the steps that were recorded.
      principal: a `pmt.spectral.Principal`: the direction that ``alignment`` is with.
      alignment: (r, n), rho of every token with the principal direction, a line or a plane.
      others: by index of the eigenvector, from 0: (r, n), alignment with the direction of the end
        where that is not the principal one.
      chance: rho of a token uniform on the sphere with the principal direction.
      distance: (r,), mean intertoken distance.
    """

    steps: Any
    principal: Any
    alignment: Any
    others: dict[int, Any]
    chance: float
    distance: Any

    def lines(self) -> list[str]:
        """For the screen: each observable at the start and at the end."""
        named = [(self._name(), self.alignment.mean(axis=1))]
        named += [(f"|x·v{k + 1}|", each.mean(axis=1)) for k, each in self.others.items()]
        parts = [f"{name} {series[0]:.4f} -> {series[-1]:.4f}" for name, series in named]
        told = f"mean {', '.join(parts)} (chance {self.chance:.4f})"
        apart = f"{self.distance[0]:.4g} -> {self.distance[-1]:.4g}"
        return [answers.line("alignment", told), answers.line("distance", f"{apart} on average")]

    def document(self) -> dict[str, Any]:
        """For JSON: means over tokens at every recorded step."""
        return {
            "step": self.steps,
            "alignment": {
                "principal": self.alignment.mean(axis=1),
                **{f"v{k + 1}": each.mean(axis=1) for k, each in self.others.items()},
            },
            "chance": self.chance,
            "intertoken_distance": self.distance,
        }

    def trajectory(self, run: Run, pairs: Any) -> "Trajectory":
        """What the figure is drawn from."""
        import numpy as np

        from pmt.figures.trajectory import Trajectory

        real = np.flatnonzero(pairs.is_real)
        return Trajectory(
            steps=self.steps,
            path=np.asarray(run.path, float),
            axes=pairs.vectors.real[:, real],
            labels=[f"$v_{{{k + 1}}}$" for k in real],
            plane=self.principal.basis if self.principal.dimension == 2 else None,
            alignment=self.alignment,
            alignment_label=(
                r"$|x_i \cdot v_1|$" if self.principal.dimension == 1 else r"$|P_{12}\, x_i|$"
            ),
            others={rf"$|x_i \cdot v_{{{k + 1}}}|$": each for k, each in self.others.items()},
            chance=self.chance,
            distance=self.distance,
        )

    def _name(self) -> str:
        return "|x·v1|" if self.principal.dimension == 1 else "|P x| onto the plane of v1, v2"


def observables(system: Any, run: Run, end: Any) -> Observed:
    """Measures a finished run; `end` is the `Classification` of its last state."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from pmt import spectral, sphere

    principal = spectral.principal(system)
    vectors = principal.pairs.vectors
    path = np.asarray(run.path, np.float64)
    others = {}
    if end.eigenvector is not None:
        index = answers.eigen_index(end, principal.pairs.values, vectors)
        if index > 0:
            others[index] = _alignment(path, vectors[:, index : index + 1].real)
    # State by state, so that one compilation serves runs of every length.
    spread = jax.jit(sphere.intertoken_distance)
    distance = [float(spread(jnp.asarray(x))) for x in run.path]
    return Observed(
        steps=run.recorded,
        principal=principal,
        alignment=_alignment(path, principal.basis),
        others=others,
        chance=spectral.chance(path.shape[2], principal.dimension),
        distance=np.array(distance),
    )


def _alignment(path: Any, basis: Any) -> Any:
    """|P x|, at most 1, of every token with an orthonormal basis (d, 1) or (d, 2)."""
    import numpy as np

    return np.minimum(np.linalg.norm(path @ basis, axis=-1), 1.0)
