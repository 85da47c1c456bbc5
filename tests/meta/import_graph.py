"""Who imports whom in pmt/ and theory/, read from the source, and what of it the house forbids.

The order of the rooms is that of the architecture, from the ground up: a room imports only from
rooms listed before it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Helpers below every room: they mean nothing by themselves and import only each other.
GROUND = frozenset({"errors", "files", "numerics", "linalg", "condition", "memory", "parallel"})

ROOMS = (
    "sphere",
    "attention",
    "dynamics",
    "equilibria",
    "stability",
    "spectral",
    "steering",
    "checkpoints",
    "models",
    "looped",
    "experiments",
    "figures",
    "report",
    "cli",
)

# The mathematics, which is all that statements may be about.
THEORY_MAY_IMPORT = GROUND | {*ROOMS[: ROOMS.index("steering") + 1], "looped"}

# Packages that only one room may import, and packages that none may.
ONLY_IN = {"matplotlib": "figures", "typer": "cli", "theory": "cli"}
NEVER = frozenset({"torch", "transformers", "tests", "benchmarks", "pytest", "hypothesis"})
# Strategies are for tests, and ship with the statements that they draw instances for.
NEVER_BUT = {("theory.strategies", "hypothesis")}

# What the files of pmt/cli may import at their top, so that help does not wait.
LIGHT_ROOMS = frozenset({"errors", "files", "memory", "cli", "__version__"})
HEAVY = frozenset({"jax", "jaxlib", "numpy", "scipy", "matplotlib", "flax", "optax", "rich"})


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, both as dotted names; `top` is whether that runs on import."""

    module: str
    line: int
    target: str
    top: bool


def violations(root: Path) -> list[str]:
    """Every import below `root` that the house forbids, one sentence each."""
    found = []
    for package in ("pmt", "theory"):
        for path in sorted((root / package).rglob("*.py")):
            module = _module_name(path.relative_to(root))
            # The lazy surface names every room and imports none.
            if module == "pmt":
                continue
            for each in imports(path, module):
                reason = _forbidden(each)
                if reason:
                    found.append(f"{path.relative_to(root)}:{each.line}: {reason}")
    return found


def imports(path: Path, module: str) -> Iterator[Import]:
    """All imports in the file, those inside functions and `if TYPE_CHECKING` too."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    lazy = {id(inner) for node in ast.walk(tree) if _is_lazy(node) for inner in ast.walk(node)}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            kept = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*kept, *([node.module] if node.module else [])])
            # `from pmt import sphere` imports pmt.sphere, not all of pmt.
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(module, node.lineno, target, id(node) not in lazy)


def _is_lazy(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(name: str) -> str:
    """The room that a dotted name lies in; `python -m pmt` is part of the command line."""
    parts = name.split(".")
    if parts[0] != "pmt":
        return parts[0]
    return "cli" if parts[1:2] == ["__main__"] else ".".join(parts[1:2])


def _forbidden(each: Import) -> str | None:
    source, package, target = _room(each.module), each.target.split(".")[0], _room(each.target)
    if source not in {*GROUND, *ROOMS, "theory"}:
        return f"{source} is no room; give it a place in the order of tests/meta/import_graph.py"
    if package in NEVER and (each.module, package) not in NEVER_BUT:
        return f"nobody imports {package}"
    if package in ONLY_IN and source not in {ONLY_IN[package], package}:
        return f"only {ONLY_IN[package]} may import {package}, and this is {source}"
    if source == "cli" and each.top and (package in HEAVY or _is_heavy_room(package, target)):
        return f"{each.target} is too heavy for the top of a file in cli; import it where used"
    if package != "pmt" or source == target or target == "__version__":
        return None
    if target not in GROUND and target not in ROOMS:
        return f"{each.target} is no room; import a name from the room that defines it"
    if source == "theory":
        allowed = THEORY_MAY_IMPORT
    elif source in GROUND:
        allowed = GROUND
    else:
        allowed = GROUND | set(ROOMS[: ROOMS.index(source)])
    return None if target in allowed else f"{source} may not import {target}"


def _is_heavy_room(package: str, target: str) -> bool:
    return package == "theory" or (package == "pmt" and target not in LIGHT_ROOMS)
