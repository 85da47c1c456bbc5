"""`pmt stability`: one system at one point: which kind, whether fixed, whether stable, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmt.cli import answers, screen
from pmt.cli.assessment import (
    LARGEST_DENSE,
    certificate_words,
    certified,
    dense_size,
    require_prover,
)
from pmt.cli.exits import Status
from pmt.cli.interrupts import between_pieces
from pmt.cli.options import Device, Dtype, JsonFile, OutDirectory, Overwrite, Seed, start_backend
from pmt.cli.point_options import (
    Index,
    Placement,
    Signs,
    Split,
    Tokens,
    read_tokens,
    require_affordable,
)
from pmt.cli.system_options import (
    Alpha,
    Kind,
    MaskName,
    QueryKeys,
    Random,
    Scale,
    SystemFile,
    Values,
    requested_system,
)
from pmt.errors import RequestError
from pmt.files import prepare_output_directory, write_json

if TYPE_CHECKING:
    from pmt.cli.system_file import SystemDescription

Point = Annotated[
    str,
    typer.Option(
        "--point",
        metavar="POINT",
        help="consensus, bipartite, polygonal, or a .npy file with one token a row.",
    ),
]

Certify = Annotated[
    bool,
    typer.Option(
        "--certify",
        help="Also prove the verdict in ball arithmetic, the numbers given being exact; needs "
        "python-flint.",
    ),
]


def stability(
    system: SystemFile = None,
    point: Point = "consensus",
    index: Index = None,
    tokens: Tokens = None,
    split: Split = None,
    signs: Signs = None,
    value: Values = None,
    query_key: QueryKeys = None,
    random: Random = None,
    kind: Kind = None,
    alpha: Alpha = None,
    scale: Scale = None,
    mask: MaskName = None,
    certify: Certify = False,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float64",
    device: Device = None,
) -> int:
    """Spectrum and verdict of one system at one point.

    Says whether the point is an equilibrium (or half of a 2-cycle, which is analysed per step),
    whether it is stable, by which margin and method, and which conditions of the theorems hold.
    A certificate is shown beside the verdict.

    Ends with status 0 if the point is stable; with 1 if it is not, if that is not decided, or if
    the point is no equilibrium. A certificate does not change it.

    For instance: pmt stability --value diag:1,0.5,-0.3 --query-key diag:2,0,0 --alpha 0.2 --point
    bipartite --split 3,2
    """
    place = Placement(point, index, tokens, split, signs)
    place.check()
    if certify:
        require_prover()
    described = requested_system(
        system,
        value=value,
        query_key=query_key,
        random=random,
        kind=kind,
        alpha=alpha,
        scale=scale,
        mask=mask,
        seed=seed,
    )
    with between_pieces() as listen:
        platform = start_backend(device, dtype)
        from pmt import spectral
        from pmt.stability import analyze

        map_ = described.build(dtype)
        pairs = spectral.eigenpairs(spectral.layer_matrix(map_))
        listen()
        known, x, remark = _find(place, described, map_, dtype)
        fixed = known.status in ("equilibrium", "2-cycle")
        if known.kind not in ("consensus", "bipartite"):
            _require_small(x)
        analysis = analyze(map_, known if place.is_named else x) if fixed else None
        listen()
        certificate = certified(map_, x) if certify else None

        listen()
        folder = out and prepare_output_directory(out, writer="pmt stability", overwrite=overwrite)
        conditions = (
            known.conditions if place.is_named else answers.classification_conditions(known)
        )
        words = answers.point_words(known, pairs.values, pairs.vectors)
        screen.show(*answers.system_lines(described, pairs.values))
        screen.show(answers.line("point", f"{words}; {x.shape[0]} tokens"))
        if remark:
            screen.show(answers.line("", remark))
        screen.show(answers.line("status", _status_words(known, place)))
        screen.show(answers.condition_table("why", conditions))
        if analysis is not None:
            screen.show(*answers.stability_lines(analysis))
            screen.show(answers.multiplier_table(analysis.eigenvalues))
            if analysis.conditions:
                screen.show(
                    answers.condition_table("conditions of the theorems", analysis.conditions)
                )
        if certificate is not None:
            screen.show(answers.line("certificate", certificate_words(certificate)))
        report = {
            "schema": "pmt.stability/1",
            "system": described.document(),
            "settings": answers.settings(dtype, platform, seed),
            "eigenvalues": pairs.values,
            "point": _point_document(known, x, conditions),
            "analysis": None if analysis is None else answers.finite(analysis.as_dict()),
            "certificate": None if certificate is None else certificate.as_dict(),
        }
        if folder is not None and analysis is not None:
            from pmt.figures.multipliers import multiplier_figure
            from pmt.figures.style import save

            save(multiplier_figure(analysis.eigenvalues, words), folder, "multipliers")
        if json is not None:
            write_json(json, report)
        stable = analysis is not None and analysis.verdict == "stable"
        return Status.DONE if stable else Status.ANSWER_IS_NO


def _find(
    place: Placement, described: "SystemDescription", map_: Any, dtype: str
) -> tuple[Any, Any, str | None]:
    """The point (an `Equilibrium` or a `Classification`), its tokens, and a remark on them."""
    if place.is_named:
        known = place.equilibrium(map_, described.mask_size)
        return known, known.x, None
    from pmt.equilibria import classify

    x, remark = read_tokens(Path(place.name), described.dimension, dtype)
    require_affordable(map_, len(x))
    return classify(map_, x), x, remark


def _require_small(x: Any) -> None:
    size = dense_size(x)
    if size > LARGEST_DENSE:
        message = (
            f"only consensus and bipartite points have a closed form, and a dense matrix of size "
            f"{size} takes too long; at most {LARGEST_DENSE} = tokens * (d - 1)"
        )
        raise RequestError(message)


def _status_words(known: Any, place: Placement) -> str:
    if known.status == "equilibrium":
        return "equilibrium, f(x) = x"
    if known.status == "2-cycle":
        return "no equilibrium but half of a 2-cycle, f(x) = -x and f(f(x)) = x"
    if known.status == "undefined":
        return "undefined: the update of a token cancels it to zero or overflows"
    hint = "" if place.is_named else "; 'pmt simulate --start' runs the system from there"
    return f"not fixed, tokens move elsewhere{hint}"


def _point_document(known: Any, x: Any, conditions: Any) -> dict[str, Any]:
    import numpy as np

    def plain(value: Any) -> Any:
        return None if value is None else np.asarray(value)

    return {
        "kind": known.kind,
        "status": known.status,
        "tokens": np.asarray(x),
        "eigenvector": plain(known.eigenvector),
        "eigenvalue": known.eigenvalue,
        "signs": plain(known.signs),
        "conditions": answers.finite([condition.as_dict() for condition in conditions]),
    }
