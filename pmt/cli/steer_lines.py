"""How `pmt steer` puts its result into tables and sentences for the screen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from pmt.experiments.collateral import Cost
    from pmt.experiments.steer import Steering
    from pmt.steering import Preimage, Reach

# A requested alignment that is missed by more was not reached.
NEAR_ENOUGH = 0.02
# Beyond this tangent a first order in 1/c says nothing.
_FIRST_ORDER = 0.3
# A multiple of the target that is smaller is none.
_NOTHING = 1e-9
# A share that is all of it, to what is shown.
_ALL = 0.995


def screen_parts(result: "Steering", source: str) -> list["str | Table"]:
    """What was done, what became of the tokens, what it costs."""
    model, config, edit = result.model, result.config, result.edit
    prompts, n, _ = result.shape
    longest = "up to " if config.mode == "full" else ""
    multiple = "" if edit.multiple is None else f" = {edit.multiple:g} |λ1|"
    parts: list[str | Table] = [
        f"{model.name} ({model.family}, {model.layers} layers, d = {model.d}), layer "
        f"{result.layer}, {config.mode} mode, {prompts} prompts of {longest}{n} tokens",
        f"direction: {source}",
        f"edit: c = {edit.strength:.6g}{multiple}, {_solved(result)}; rounding to "
        f"{result.cast.dtype} loses {_share(result.cast.relative)} of it",
        f"alignment with the target after the layer: {result.before:.4f} before, "
        f"{result.after:.4f} with the edit{_asked(result)}",
        *_shared(result),
        *_condition(result),
        _signs(result),
        *_transfer(result),
        *_preimage(result),
        *_curve(result),
    ]
    if result.costs:
        parts += [_cost_table(result)]
    else:
        parts += ["the cost was not measured: the checkpoint has no tokenizer to read text with"]
    return parts


def _solved(result: "Steering") -> str:
    edit = result.edit
    if edit.exact:
        return f"F' = F + c w zᵀ to {edit.residual:.1e}"
    kept = float((edit.achieved**2).sum() ** 0.5)
    return (
        f"V is singular (rank {edit.rank} of {len(edit.read)}), so by least squares F' = F + c w "
        f"(zᵀV⁺V), which keeps {kept:.3f} of z"
    )


def _asked(result: "Steering") -> str:
    wanted = result.config.alignment
    if wanted is None:
        return ""
    near = abs(result.after - wanted) <= NEAR_ENOUGH
    return f" ({wanted:.10g} was asked for{'' if near else ', and was missed'})"


def _shared(result: "Steering") -> list[str]:
    """Of weights that several layers have, what becomes of the tokens after the last of them."""
    if not result.config.all_layers or result.layer == len(result.steered):
        return []
    last = result.steered[-1]
    return [
        f"other layers have the weights of layer {result.layer} and are edited too; after the last "
        f"layer the alignment is {last.target.rho_after:.4f}, while what stands here is after "
        f"layer {result.layer}"
    ]


def _condition(result: "Steering") -> list[str]:
    """What must be large for w to dominate, in place of the paper's factor of ten."""
    edit, response = result.edit, result.edit.response
    if response is None:
        return []
    if edit.strength == 0:
        tilt = "with c = 0 nothing is turned"
    elif edit.tilt is None:
        tilt = "no eigenvector of F' need be near w (zᵀw = 0)"
    elif edit.tilt <= _FIRST_ORDER:
        tilt = f"an eigenvector of F' is at tan {edit.tilt:.3g} from w (to first order in 1/c)"
    else:
        tilt = (
            f"c is too small for the first order in 1/c (tan {edit.tilt:.3g}) to show an "
            "eigenvector of F' near w"
        )
    said = f"c |κ| > |y| for {response.share_dominated(edit.strength):.1%} of the tokens; {tilt}"
    return [said, *_principal(result)]


def _principal(result: "Steering") -> list[str]:
    """What the first order is about, as it is, where it was solved for."""
    before, after = (panels[result.layer - 1] for panels in (result.base, result.steered))
    if before.cosine is None or after.cosine is None:
        return []
    return [
        f"the layer's principal {'line' if after.dimension == 1 else 'plane'} has |cos| = "
        f"{after.cosine:.4f} with the target (without the edit {before.cosine:.4f})"
    ]


def _signs(result: "Steering") -> str:
    share = max(result.positive_after, 1 - result.positive_after)
    if share == 1:
        side = "+" if result.positive_after == 1 else "-"
        return f"all tokens end on the side of {side}w"
    said = (
        f"{result.positive_after:.1%} of the tokens end on the side of +w and the rest on that of "
        "-w: the sign is that of c κ + wᵀy, token by token"
    )
    response = result.edit.response
    if response is not None and response.share_dominated(result.edit.strength) < 1:
        said += ", and where c |κ| is not above |y| the edit does not decide it"
    if response is not None and response.share_positive in (0.0, 1.0):
        return said
    if result.read == "fit":
        return f"{said}; no read vector was found that gives κ one sign"
    return f"{said}; --read fit looks for the read vector that gives κ one sign"


def _transfer(result: "Steering") -> list[str]:
    if result.config.mode == "full" or result.read not in ("mean", "fit"):
        return []
    return [
        "the read vector comes from these tokens in stripped mode and says nothing about real "
        "text; for a model to be used on text, choose --mode full"
    ]


def _preimage(result: "Steering") -> list[str]:
    found = result.preimage
    if found is None:
        return []
    bound = "unknown" if found.bound is None else f"{found.bound:.3g}"
    holds = "holds" if found.condition_holds else "is not shown"
    return [
        f"pre-compensation: {_verdict(found)}; the rest of the layer maps the best direction that "
        f"was found to the target with cosine {found.cosine:.4f} (residual {found.residual:.2e}), "
        f"the target itself with {found.plain:.4f}, and the opposite of the best with "
        f"{found.opposite:.4f}",
        f"the sufficient condition |FFN(x)| < |x| {holds} (upper bound of the ratio: {bound})",
    ]


def _verdict(found: "Preimage") -> str:
    if found.found:
        return "a preimage was found"
    norm = found.reach
    if norm is None:
        return "no preimage was found"
    nearest = f"its outputs come to the target with a cosine of at most {_nearly(norm.cosine)}"
    if found.excluded:
        return f"no preimage exists, since the last norm {_forbids(norm)}; {nearest}"
    # With two zero gains any larger variance does too.
    if norm.variance is None or norm.seen is None or norm.silent > 1:
        return "no preimage was found, and the last norm does not forbid one"
    return (
        f"no preimage was found; the last norm gives the target only where the state before it has "
        f"the variance {norm.variance:.3g}, and on these texts it has {norm.seen:.3g} or more, "
        f"where {nearest}"
    )


def _nearly(cosine: float) -> str:
    shown = f"{cosine:.4f}"
    return f"1 - {1 - cosine:.1e}" if shown == "1.0000" and cosine < 1 else shown


def _forbids(norm: "Reach") -> str:
    if norm.silent_share > 0 and (norm.factor is None or norm.factor < _NOTHING):
        many = "a gain of zero" if norm.silent == 1 else f"{norm.silent} gains of zero"
        return f"has {many}, in whose entries {norm.silent_share:.2g} of the target's length lies"
    if not norm.factor:
        return "gives no multiple of the target"
    if norm.factor < 0:
        return f"gives no multiple of the target but one that is negative ({norm.factor:.3g})"
    return (
        f"gives the target only for normed entries of mean square {norm.mean_square:.3g}, and "
        "theirs is below 1"
    )


def _curve(result: "Steering") -> list[str]:
    curve = result.curve
    if curve is None:
        return []
    off = abs(curve.measured - curve.predicted)
    inside = int((off <= curve.error).sum())
    return [
        f"dose and response: measured within the stated error of the prediction at {inside} of "
        f"{len(off)} strengths (largest difference {off.max():.1e}, stated {curve.error.max():.1e})"
    ]


def _cost_table(result: "Steering") -> "Table":
    from rich import box
    from rich.table import Table

    decoder = result.costs[0].kl is not None
    table = Table(
        title="Cost on plain text, full mode; the first line is this edit",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    last = ("KL", "perplexity") if decoder else ("Δ similarity", "rank corr.")
    for name in ("method", "dose", "alignment", "positive", *last):
        table.add_column(name, justify="right")
    for cost in result.costs:
        table.add_row(
            cost.method,
            f"{cost.dose:.4g}",
            f"{cost.alignment:.4f}",
            f"{cost.positive:.2f}",
            *_numbers(cost),
        )
    return table


def _numbers(cost: "Cost") -> list[str]:
    pair = (
        (cost.kl, cost.perplexity)
        if cost.kl is not None
        else (cost.similarity_change, cost.similarity_rank)
    )
    return ["" if value is None else f"{value:.4g}" for value in pair]


def _share(value: float | None) -> str:
    if value is None:
        return "nothing"
    return "all" if value > _ALL else f"{value:.1e}"
