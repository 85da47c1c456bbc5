"""The circle of all lam with |1 + alpha lam| = |1 + alpha lam_1|, as far as it is seen."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

# From so many times what is seen on, dashes along the rest would fill the memory.
_LARGE = 50.0


def level_circle(axis: Axes, value: complex, alpha: float, reach: float, **style: Any) -> None:
    """Draw it through the eigenvalue ``value``; nothing where alpha is zero.

    Args:
      axis: of the complex plane.
      value, alpha: lam_1 and the step size.
      reach: of what is seen, from the origin.
      style: of the line, such as ``color`` and ``ls``.
    """
    if alpha == 0:
        return
    factor = abs(1 + alpha * value)
    radius = factor / abs(alpha)
    if radius <= _LARGE * reach:
        axis.add_patch(Circle((-1 / alpha, 0), radius, fill=False, **style))
        return
    # (factor - 1) / alpha, where it crosses the real axis near the origin, without cancellation.
    edge = (2 * value.real + alpha * abs(value) ** 2) / (1 + factor)
    y = np.linspace(-1, 1, 401) * min(radius, _LARGE * reach)
    x = edge - np.sign(alpha) * y**2 / (radius + np.sqrt(radius**2 - y**2))
    # What lies outside does not move the limits.
    axis.plot(x, y, scalex=False, scaley=False, **style)
