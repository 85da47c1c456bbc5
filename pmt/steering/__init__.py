"""Steering: a rank-one edit of a layer's output weights that turns its tokens to a direction."""

from pmt.steering.design import design, leading_eigenvalue, unit
from pmt.steering.edit import Cast, Edit, OutOfRange, add_rank_one, apply, side_by_side
from pmt.steering.norm_range import Reach, reach
from pmt.steering.preimage import Preimage, precompensate
from pmt.steering.response import Attended, Response, attend, predicted_error

__all__ = [
    "Attended",
    "Cast",
    "Edit",
    "OutOfRange",
    "Preimage",
    "Reach",
    "Response",
    "add_rank_one",
    "apply",
    "attend",
    "design",
    "leading_eigenvalue",
    "precompensate",
    "predicted_error",
    "reach",
    "side_by_side",
    "unit",
]
