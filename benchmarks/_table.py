"""Rows of results as lines on a screen and as a table in Markdown."""

from typing import Any

from benchmarks._results import Entries

HEADINGS = ("benchmark", "size", "ours", "compile", "beside", "its time", "ratio", "limit", "check")


def line(row: dict[str, Any]) -> str:
    """One row on the screen."""
    cells = dict(zip(HEADINGS, _cells(row), strict=True))
    parts = [f"{cells['benchmark']} ({cells['size']})" if cells["size"] else cells["benchmark"]]
    parts += [f"{cells['ours']}" if cells["ours"] else ""]
    parts += [f"compile {cells['compile']}" if cells["compile"] else ""]
    parts += [": ".join(c for c in (cells["beside"], cells["its time"]) if c)]
    parts += [f"ratio {cells['ratio']}" if cells["ratio"] else ""]
    parts += [cells["limit"], cells["check"]]
    return ", ".join(part for part in parts if part)


def markdown(entries: Entries) -> str:
    """All results, a table for each benchmark, with the machine that each was run on."""
    parts = []
    for name, entry in entries.items():
        cells = [_cells(row) for row in entry["rows"]]
        used = [i for i in range(len(HEADINGS)) if any(each[i] for each in cells)]
        lines = [[HEADINGS[i] for i in used], ["---"] * len(used)]
        lines += [[each[i] for i in used] for each in cells]
        table = "\n".join("| " + " | ".join(each) + " |" for each in lines)
        parts.append(f"## {name}\n\n{_machine(entry)}\n\n{table}\n")
    return "\n".join(parts)


def _machine(entry: dict[str, Any]) -> str:
    known = entry["environment"]
    threads = known.get("threads", known.get("processors"))
    said = [f"{known['processor']}, {threads} threads", f"on {known['device']}"]
    said += [f"Python {known['python']}, jax {known['jax']}"]
    if known.get("load_average") is not None:
        said.append(f"load average before {known['load_average']:.1f}")
    if entry.get("seconds") is not None:
        said.append(f"{entry['seconds']:.0f} s in all")
    if entry.get("quick"):
        said.append("--quick")
    return ", ".join(said)


def _cells(row: dict[str, Any]) -> list[str]:
    size = ", ".join(f"{k} = {v}" for k, v in row["size"].items())
    ours, theirs = row.get("ours"), row.get("peer_time")
    compiling = "" if not ours or not ours["compile"] else seconds(ours["compile"])
    return [
        row["name"],
        size,
        seconds(ours["median"]) if ours else _exponent(row),
        compiling,
        row.get("peer") or "",
        seconds(theirs["median"]) if theirs else "",
        "" if row.get("ratio") is None else f"{row['ratio']:.3g}",
        _limit(row),
        _check(row),
    ]


def seconds(value: float) -> str:
    """A time with a unit, three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _exponent(row: dict[str, Any]) -> str:
    if row.get("exponent") is None:
        return ""
    error = row["standard_error"]
    spread = "" if error is None else f" ± {error:.2f}"
    return f"{row['axis']}^({row['exponent']:.2f}{spread})"


def _limit(row: dict[str, Any]) -> str:
    if row.get("limit") is None:
        return ""
    limit = row["limit"]
    return f"{limit['what']}: {seconds(limit['seconds'])}, {100 * limit['share']:.2g} % of ours"


def _check(row: dict[str, Any]) -> str:
    parts = []
    if row.get("largest_difference") is not None:
        parts.append(f"largest difference {row['largest_difference']:.1e}")
    parts += [str(row["check"])] if row.get("check") else []
    for side, most in row.get("memory", {}).get("peak", {}).items():
        if most is not None:
            parts.append(f"peak memory of {side} {most / 1e6:.0f} MB")
    return "; ".join(parts)
