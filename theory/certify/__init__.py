"""Proofs for single instances: the verdict on one equilibrium, in ball arithmetic.

Needs python-flint (the extra ``certify``), which is imported when a proof begins.
"""

from theory.certify.certificate import PRECISIONS, REACH, Certificate, certify, verify

__all__ = ["PRECISIONS", "REACH", "Certificate", "certify", "verify"]
