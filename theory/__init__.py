"""Statements about the maps, each in the paper's form and in a corrected one, and their checks.

Every statement carries its hypotheses as a generator of instances that satisfy them by
construction, and its conclusion as a signed margin: positive where it holds, negative where it is
violated, within the margin's own tolerance undecided. A status is never written down, only
expected: it comes out of the margins. Sources: arXiv 2605.25619 ("the paper").
"""
