"""Hugging Face checkpoints: found, fetched, verified, read one tensor at a time, and written."""

from pmt.checkpoints.checkpoint import Checkpoint
from pmt.checkpoints.header import Entry
from pmt.checkpoints.locate import PACKAGED, locate
from pmt.checkpoints.read import Weights, open_weights
from pmt.checkpoints.write import write_checkpoint

__all__ = [
    "PACKAGED",
    "Checkpoint",
    "Entry",
    "Weights",
    "locate",
    "open_weights",
    "write_checkpoint",
]
