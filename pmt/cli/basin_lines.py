"""What `pmt basin` says of its results."""

from typing import TYPE_CHECKING, Any

from pmt.cli import answers

if TYPE_CHECKING:
    from rich.table import Table


def summary(found: Any) -> list[str]:
    """How many runs, and what may be wrong with their number."""
    runs = f"{found.samples:,} of {found.tokens} tokens (seed {found.seed}), "
    runs += f"{found.mean_steps:.0f} steps each of at most {found.max_steps}"
    share = found.unresolved
    lines = [answers.line("runs", runs)]
    if found.width is not None:
        what = "reached" if found.reached else "not reached"
        lines.append(answers.line("width", f"{found.width:g} {what}"))
    if share.count:
        words = f"{share.count} runs, {share.fraction:.3%}, may belong to any basin"
        lines.append(answers.line("unresolved", words))
    return lines


def table(found: Any) -> "Table":
    """The attractors with their shares, largest first."""
    from rich.table import Table

    title = f"where they end, with {found.confidence:.4g} {found.method} intervals"
    rows = Table("attractor", title=title, title_justify="left", title_style="")
    for name in ("runs", "fraction", "interval", "radius"):
        rows.add_column(name, justify="right")
    rows.add_column("verdict")
    for each in found.attractors:
        share, radius = each.share, each.spectral_radius
        rows.add_row(
            each.name,
            str(share.count),
            f"{share.fraction:.5f}",
            f"[{share.low:.5f}, {share.high:.5f}]",
            "" if radius is None else f"{radius:.6g}",
            each.verdict or "",
        )
    return rows


def shares(attractors: Any) -> str:
    """The attractors of a map in one line."""
    return ", ".join(f"{each.name} {each.share.fraction:.1%}" for each in attractors)


def escape_words(escape: Any) -> str:
    """How far a point can be pushed, by quantiles."""
    parts = [
        f"{p:.0%} {radius:.3f}" if radius < float("inf") else f"{p:.0%} beyond {escape.reach:.3g}"
        for p, radius in escape.quantiles
    ]
    doubt = f"; {int(escape.doubtful.sum())} not resolved" if escape.doubtful.any() else ""
    return (
        f"within the geodesic distance, by quantile of {len(escape.kept)} directions: "
        + ", ".join(parts)
        + doubt
    )
