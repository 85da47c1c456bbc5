"""How systems, points and stability are put into words, tables and JSON by several commands."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from pmt.cli.system_file import SystemDescription

# Rows of a table of multipliers; the JSON file holds all.
_SHOWN = 8
_LABEL = 13


def line(label: str, text: str) -> str:
    """`label` in a column of its own, then `text`."""
    return f"{label:<{_LABEL}}{text}"


def number(value: complex) -> str:
    """Six digits; an imaginary part only where there is one."""
    value = complex(value)
    if value.imag == 0:
        return f"{value.real:.6g}"
    return f"{value.real:.6g} {'+' if value.imag > 0 else '-'} {abs(value.imag):.6g}i"


def system_lines(described: "SystemDescription", values: Any) -> list[str]:
    """The system and the eigenvalues of its layer matrix."""
    parts = [f"{described.kind}, d = {described.dimension}"]
    if described.kind == "multi-head":
        parts.append(f"h = {described.heads}")
    parts.append(f"alpha = {described.alpha:g}")
    if described.scale is not None:
        parts.append(f"scale = {described.scale:g}")
    shown = ", ".join(number(value) for value in values[:_SHOWN])
    more = f", ... ({len(values)} in all)" if len(values) > _SHOWN else ""
    return [
        line("system", ", ".join([*parts, _mask_words(described.mask)])),
        line("eigenvalues", f"{shown}{more} of the layer matrix"),
    ]


def point_words(known: Any, values: Any, vectors: Any) -> str:
    """What kind of point it is and along which eigenvector: `bipartite along v1 (λ1 = 1), ++-`."""
    if known.kind is None:
        return "of no known kind"
    if known.eigenvector is None:
        return str(known.kind)
    index = eigen_index(known, values, vectors)
    where = f"{known.kind} along v{index + 1} (λ{index + 1} = {number(values[index])})"
    if known.kind == "consensus":
        return where
    signs = ["+" if sign > 0 else "-" for sign in known.signs]
    shown = "".join(signs[:40]) + ("..." if len(signs) > 40 else "")
    return f"{where}, {signs.count('+')} + {signs.count('-')}: {shown}"


def eigen_index(known: Any, values: Any, vectors: Any) -> int:
    """From 0: which real eigenvector a consensus or bipartite point lies along."""
    import numpy as np

    along = np.abs(np.asarray(known.eigenvector, float) @ vectors.real)
    return int(np.argmax(np.where(values.imag == 0, along, -1.0)))


def condition_table(title: str, conditions: Sequence[Any]) -> "Table":
    """Name, inequality, margin and status of each condition."""
    from rich.table import Table

    table = Table("condition", "inequality", title=title, title_justify="left", title_style="")
    table.add_column("margin", justify="right")
    table.add_column("status")
    for each in conditions:
        table.add_row(each.name, each.text, f"{each.margin:+.3g}", each.status)
    return table


def classification_conditions(known: Any) -> list[Any]:
    """The tests of a `Classification` as conditions."""
    from pmt.condition import Condition

    texts = {
        "fixed": "f(x) = x",
        "2-cycle": "f(x) = -x",
        "equal tokens": "x_i = x_1",
        "opposite tokens": "x_i = x_1 or -x_1",
        "eigenvector": "F x_1 is parallel to x_1",
        "attended means": "Σ_j a_ij x_j = 0",
    }
    within = f" (within {known.tolerance:.1g})"
    return [Condition(name, texts[name] + within, m) for name, m in known.margins.items()]


def stability_lines(analysis: Any) -> list[str]:
    """Verdict, spectral radius, margin, tolerance, method and disagreement."""
    per_step = " (per step of the 2-cycle)" if analysis.status == "2-cycle" else ""
    parts = [
        f"{analysis.spectral_radius:.9g}{per_step}",
        f"margin {analysis.margin:+.3g}",
        f"tolerance {analysis.tolerance:.1g}",
    ]
    method = analysis.method
    if analysis.disagreement is not None:
        method += f", off the autodiff Jacobian by {analysis.disagreement:.1g}"
    return [
        line("verdict", f"{analysis.verdict}{_why(analysis)}"),
        line("radius", ", ".join(parts)),
        line("method", method),
    ]


def multiplier_table(eigenvalues: Any) -> "Table":
    """The distinct multipliers of largest modulus, with how often each occurs."""
    from rich.table import Table

    groups = multiplicities(eigenvalues)
    more = f", {_SHOWN} of {len(groups)} distinct" if len(groups) > _SHOWN else ""
    title = f"leading multipliers ({len(eigenvalues)} in all{more})"
    table = Table(title=title, title_justify="left", title_style="")
    for name in ("modulus", "value", "times"):
        table.add_column(name, justify="right")
    for value, times in groups[:_SHOWN]:
        table.add_row(f"{abs(value):.9g}", number(value), str(times))
    return table


def multiplicities(eigenvalues: Any) -> list[tuple[complex, int]]:
    """Numbers in decreasing modulus with those that agree to rounding counted together."""
    found: list[tuple[complex, int]] = []
    for value in eigenvalues:
        close = 1e-9 * max(1.0, abs(value))
        for place, (other, times) in enumerate(found):
            if abs(other - value) <= close:
                found[place] = (other, times + 1)
                break
        else:
            found.append((complex(value), 1))
    return found


def finite(value: Any) -> Any:
    """`value` with every number that JSON cannot hold (NaN, infinity) replaced by null."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def settings(dtype: str, platform: str, seed: int) -> dict[str, Any]:
    """What a result depends on beside the system: for the JSON files."""
    import jax
    import numpy as np

    from pmt import __version__

    versions = {"pmt": __version__, "jax": jax.__version__, "numpy": np.__version__}
    return {"dtype": dtype, "device": platform, "seed": seed, "versions": versions}


def _why(analysis: Any) -> str:
    if analysis.verdict == "marginal":
        return ": a multiplier lies on the unit circle, where linearisation does not decide"
    if analysis.verdict == "undecided":
        return ": the margin is within the uncertainty of the multipliers"
    return ""


def _mask_words(mask: Any) -> str:
    if isinstance(mask, str):
        return f"{mask} attention"
    if isinstance(mask, dict):
        return f"{'causal' if mask['causal'] else 'two-sided'} window of {mask['window']}"
    return f"a mask for {mask.shape[-1]} tokens"
