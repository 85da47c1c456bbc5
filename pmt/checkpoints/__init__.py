"""Hugging Face checkpoints on disk: found, verified, and read one tensor at a time."""

from pmt.checkpoints.locate import PACKAGED, Checkpoint, locate
from pmt.checkpoints.read import Entry, Weights, open_weights

__all__ = ["PACKAGED", "Checkpoint", "Entry", "Weights", "locate", "open_weights"]
