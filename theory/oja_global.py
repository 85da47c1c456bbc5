"""Supplementary D.2: what the multi-agent Oja system converges to, Theorem 2."""

from pmt.stability import jacobian
from theory import conclusions, convergence, instances, oja_lyapunov, witnesses
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.margin import Margin, every, identity
from theory.oja import PAPER, consensus_point
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


def _polygon_unstable(shape: Shape, case: Case) -> Margin:
    system, x = instances.single_head(shape, case), case["x"]
    matrix = jacobian.intrinsic(system, x)
    amplification = lin.conditioning(system, x, case["query_key"])
    asymmetry = matrix - matrix.T
    return every(
        identity(asymmetry, scale=amplification, size=x.size, conditioning=amplification),
        lin.unstable(lin.symmetric_radius(matrix), size=x.size, conditioning=amplification),
    )


@numbered
def theorem_2() -> Statement:
    """What the Oja system converges to."""
    return Statement(
        id="theorem-2",
        source=f"Theorem 2, {PAPER}",
        text="Stability and almost global convergence of the Oja system.",
        paper=Form(
            text="as read: if alpha < 1/(2|V|), v_1 consensus is asymptotically stable; all other "
            "consensus, all bipartite and all polygonal equilibria are unstable; trajectories "
            "converge to v_1 or -v_1 for almost all x(0). (Also read with 2/(3|V|) and "
            "-2/(lambda_1 + lambda_d): refuted by the same witness, alpha = 1/4.)",
            expected="refuted",
            clauses=(
                *_theorem_2_local("half norm"),
                Clause(
                    name="antipodal pairs",
                    text="n = 2: every pair {u, -u} (polygonal; bipartite if u = v_k) is unstable",
                    hypotheses=Hypotheses(
                        (
                            hyp.symmetric_value(),
                            hyp.step("half norm"),
                            hyp.antipodal_tokens(),
                            hyp.tangent_direction(),
                        ),
                        (Shape(2, 2),),
                    ),
                    conclusion=convergence.pair_leaves,
                    explicit=(witnesses.OJA_PAIR,),
                    share=0.5,
                    long=True,
                ),
                _theorem_2_global("half norm", (Shape(2, 2), Shape(3, 2)), ()),
            ),
        ),
        corrected=Form(
            text="If n >= 3, or n = 2 and lambda_2 > 0, and alpha < 1/|V|, or V > 0 with any "
            "alpha > 0: the conclusions of the paper hold; balanced pairs at v_1 with lambda_2 < 0 "
            "(n >= 4) are unstable, though their linearization does not show it. For n = 2 and "
            "lambda_2 < 0 the pairs {u, -u} with V < 0 across u attract a set of positive measure.",
            expected="supported",
            clauses=(
                *_theorem_2_local("norm or positive"),
                _theorem_2_global(
                    "norm or positive", (Shape(3, 2), Shape(4, 3)), (hyp.enough_tokens(),)
                ),
                Clause(
                    name="sufficient increase",
                    text="w = m'Vm grows by (1/alpha + min(lambda_d, 0)) mean |Dx_i|^2 at least, "
                    "and |Dx_i| >= alpha |Pi_i u|/(1 + alpha |V|): every trajectory converges to a "
                    "single equilibrium",
                    hypotheses=Hypotheses(
                        (hyp.symmetric_value(), hyp.step("norm or positive"), hyp.tokens()),
                        (Shape(2, 2), Shape(4, 3)),
                    ),
                    conclusion=oja_lyapunov.sufficient_increase,
                    twin=Twin("step bound", oja_lyapunov.ALL_JUMP[0]),
                ),
            ),
        ),
        covers=("ii.2",),
    )


def _theorem_2_local(bound: hyp.Bound) -> tuple[Clause, ...]:
    """Local stability, with the step bound of one of the forms."""
    bipartite = Hypotheses(
        (
            hyp.symmetric_value(),
            hyp.step(bound),
            hyp.eigenpair("any"),
            hyp.split_signs("decided"),
            hyp.uniform_attention(),
            hyp.existing_bipartite(),
            hyp.full_attention(),
        ),
        (Shape(3, 2), Shape(4, 3)),
    )
    polygons = Hypotheses(
        (hyp.symmetric_value(), hyp.step(bound), hyp.polygon(), hyp.uniform_attention()),
        (Shape(3, 3), Shape(4, 2)),
    )
    return (
        Clause(
            name="principal",
            text="v_1 consensus is locally asymptotically stable",
            hypotheses=consensus_point(bound, "first"),
            conclusion=conclusions.principal_stable,
            twin=Twin("step bound", witnesses.PRINCIPAL_BEYOND_BOUND),
        ),
        Clause(
            name="other consensus",
            text="v_k consensus, k >= 2, is an unstable equilibrium",
            hypotheses=consensus_point(bound, "others"),
            conclusion=conclusions.others_unstable_equilibria,
            twin=Twin("step bound", witnesses.TWO_CYCLE),
        ),
        Clause(
            name="bipartite",
            text="bipartite equilibria at every v_k have a multiplier above 1, save balanced ones "
            "at v_1 with lambda_2 < 0, which the linearization leaves undecided",
            hypotheses=bipartite,
            conclusion=conclusions.bipartite_unstable,
            twin=Twin("uniform attention", witnesses.REMARK_10),
        ),
        Clause(
            name="polygonal",
            text="polygonal equilibria that are not on one line have a multiplier above 1",
            hypotheses=polygons,
            conclusion=_polygon_unstable,
            twin=Twin("tokens sum to 0", witnesses.NO_POLYGON),
        ),
    )


def _theorem_2_global(
    bound: hyp.Bound, shapes: tuple[Shape, ...], more: tuple[Piece, ...]
) -> Clause:
    return Clause(
        name="convergence",
        text="a random start ends with all tokens at v_1 or all at -v_1",
        hypotheses=Hypotheses(
            (
                hyp.symmetric_value(),
                hyp.step(bound),
                hyp.tokens(),
                hyp.tangent_direction(),
                *more,
            ),
            shapes,
        ),
        conclusion=convergence.reaches_principal,
        explicit=() if more else (witnesses.OJA_PAIR_START,),
        twin=Twin("n >= 3 or lambda_2 > 0", witnesses.OJA_PAIR_START) if more else None,
        share=0.5,
        long=True,
    )
