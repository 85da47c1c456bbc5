"""From a refuting instance of a statement to figures.

What is drawn follows from the fields that the instance has: a map and a point give runs from next
to the point; a map alone gives runs from anywhere; otherwise the numbers that it claims are drawn,
and where not even that makes sense the caption says so and the page shows the numbers only.
"""

from typing import TYPE_CHECKING

from pmt.cli.witness_map import read_map
from pmt.cli.witness_numbers import of_block, of_edit, of_lists, of_logits, of_numbers, of_rows
from pmt.cli.witness_runs import of_runs

if TYPE_CHECKING:
    from pmt.report import Figure
    from theory.results import Evaluated
    from theory.statement import Statement


def drawings(statement: "Statement", at: "Evaluated", name: str) -> "tuple[list[Figure], str]":
    """The figures of a refuting instance, and a sentence where there are none.

    Args:
      statement: whose form it refutes.
      at: the instance.
      name: of the first figure; a second one has ``-numbers`` behind it.
    """
    found = read_map(statement, at.shape, at.case)
    if found is not None:
        runs, beside = of_runs(found, name), f"{name}-numbers"
        numbers = of_rows(at, beside) if found.point is None else of_lists(at, beside)
        return [runs] if numbers is None else [numbers, runs], ""
    for special in (of_logits, of_edit, of_block, of_rows, of_numbers):
        figure = special(at, name)
        if figure is not None:
            return [figure], ""
    return [], (
        "This instance has no map with a point whose runs could be drawn, and its numbers have no "
        "scale in common; they are in the table."
    )
