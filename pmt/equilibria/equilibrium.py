"""An equilibrium with the conditions under which it is one."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Array, Float

from pmt.condition import Condition

Kind = Literal["consensus", "bipartite", "polygonal", "clustering"]
Status = Literal["equilibrium", "2-cycle", "not fixed", "undefined"]


@dataclass(frozen=True)
class Equilibrium:
    """A state built to be fixed, and whether it is.

    Attributes:
      x: the state, shape ``(n, d)``.
      kind: its class in Lemma 1 or Lemma 8, arXiv 2605.25619.
      status: ``"equilibrium"``: f(x) = x; ``"2-cycle"``: f(x) = −x and f(f(x)) = x;
        ``"not fixed"``: tokens move elsewhere; ``"undefined"``: the update of a token cancels
        to zero, so that f(x) does not exist.
      conditions: the existence conditions as signed margins.
      residual: max_i |f(x)_i − x_i|, for a 2-cycle max_i |f(f(x))_i − x_i|; NaN where undefined.
      eigenvector: the common direction v of consensus and bipartite points, else None.
      eigenvalue: vᵀ F v there, else None.
      signs: x_i = signs_i v there, else None.
    """

    x: Float[Array, "n d"]
    kind: Kind
    status: Status
    conditions: tuple[Condition, ...]
    residual: float
    eigenvector: Float[Array, " d"] | None = None
    eigenvalue: float | None = None
    signs: Float[Array, " n"] | None = None

    @property
    def exists(self) -> bool:
        """Whether the point is an equilibrium (a 2-cycle is not)."""
        return self.status == "equilibrium"

    @property
    def period(self) -> int | None:
        """1 for an equilibrium, 2 for a 2-cycle, None otherwise."""
        return {"equilibrium": 1, "2-cycle": 2}.get(self.status)
