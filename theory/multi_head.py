"""The main theorem and Supplementary D.4: multi-head attention with shared weights, Theorem 1."""

from theory import conclusions, instances, witnesses
from theory import hypotheses as hyp
from theory.margin import Margin, every
from theory.statement import (
    Case,
    Clause,
    Form,
    Hypotheses,
    Piece,
    Shape,
    Statement,
    Twin,
    numbered,
)

PAPER = "arXiv 2605.25619"
FULL = (Shape(3, 3, 2), Shape(4, 2, 3))
MASKED = (Shape(3, 3, 2), Shape(4, 2, 2, "causal"), Shape(4, 3, 2, "window"))


def _principal(shape: Shape, case: Case) -> Margin:
    system = instances.multi_head(shape, case)
    return conclusions.consensus_stability(system, shape, case, stable=True)


def _others(shape: Shape, case: Case) -> Margin:
    system = instances.multi_head(shape, case)
    return every(
        conclusions.fixed_or_cycle(system, case),
        conclusions.consensus_stability(system, shape, case, stable=False),
    )


def _clauses(shapes: tuple[Shape, ...], attention: Piece, name: str) -> tuple[Clause, ...]:
    def hypotheses(which: hyp.Which) -> Hypotheses:
        return Hypotheses(
            (
                hyp.symmetric_value(),
                hyp.step("sharp"),
                hyp.eigenpair(which),
                hyp.consensus_signs(),
                hyp.heads(symmetric_sum=True),
                attention,
            ),
            shapes,
        )

    return (
        Clause(
            name="principal",
            text="x_i = v_1 is locally asymptotically stable",
            hypotheses=hypotheses("first"),
            conclusion=_principal,
            twin=Twin(name, witnesses.SWAPPED_ATTENTION),
        ),
        Clause(
            name="others",
            text="x_i = v_k, k >= 2, has a multiplier above 1 (per step, where it is a 2-cycle)",
            hypotheses=hypotheses("others"),
            conclusion=_others,
            twin=Twin("step bound", witnesses.HEAD_CYCLE_BEYOND_BOUND),
        ),
    )


@numbered
def theorem_1() -> Statement:
    """Which consensus points of the multi-head system are stable."""
    return Statement(
        id="theorem-1",
        source=f"Theorem 1, {PAPER}",
        text="Stability of the consensus points of multi-head attention with shared weights (3).",
        paper=Form(
            text="as read, with full attention: if F = sum_h O_h V_h is symmetric with lambda_1 > "
            "0 simple, and alpha < -2/(lambda_1 + lambda_d) where lambda_d < -lambda_1, then x_i = "
            "v_1 is locally asymptotically stable and every other consensus point x_i = +-v_k, "
            "k >= 2, is unstable.",
            expected="supported",
            clauses=_clauses(FULL, hyp.full_attention(), "full attention"),
        ),
        corrected=Form(
            text="The same for every mask that the heads share and whose attention matrix at "
            "consensus has its eigenvalues in [0, 1] (full, causal, causal windows). Not for every "
            "graph: with an attention eigenvalue -1 and lambda_d < -lambda_1, v_1 is unstable for "
            "every alpha > 0. v_k with 1 + alpha lambda_k < 0 is half of a 2-cycle.",
            expected="supported",
            clauses=_clauses(
                MASKED, hyp.attention_spectrum_not_negative(), "attention eigenvalues >= 0"
            ),
        ),
    )
