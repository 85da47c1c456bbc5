"""Attacks a statement: searches the instances that its hypotheses allow for a violation.

``engine`` evaluates and descends batches of instances, ``hunter`` says where to search and for how
long. What is found is made readable by ``theory.shrink``.
"""

from theory.hunt.engine import Engine
from theory.hunt.hunter import Found, Ground, Hunted, Hunter

__all__ = ["Engine", "Found", "Ground", "Hunted", "Hunter"]
