"""A conjecture of one's own, stated in a file: ``pmt verify --file mine.py``.

The file is Python and is run. It defines two functions::

    def generator(noise, shape):   # one instance: a dictionary of arrays, made of random numbers
    def margin(case):              # > 0 where the conjecture holds, < 0 where it is violated

``noise`` hands out random numbers (``theory.noise.Noise``: ``normal(3, 3)``, ``uniform(0.1, 2)``,
``log_uniform``, ``unit(n, d)``, ``orthogonal(d)``, ...); ``shape`` has ``n``, ``d``, ``h`` and
``mask``. Both functions are traced by JAX, so they use ``jax.numpy``, and `where` in place of `if`
on values. What the conjecture assumes is built into ``generator``. The margin is of order one, and
may come with its rounding error as ``(margin, tolerance)``; the tolerance is 1e-9 if not given.
What is within the tolerance of 0 decides nothing.

It may also define::

    text = "what is conjectured"                       # else the file's docstring
    expected = "supported"                             # or "refuted"
    shapes = [(2, 2), (4, 3)]                          # (n, d), (n, d, h) or Shape; these if not
    def hypotheses(case): return {"alpha > 0": ...}    # margins, > 0 where the condition holds

``hypotheses`` names every condition on the instance, or is left out. With it ``--hunt`` shrinks
the instance itself; without it, the random numbers that it is made of.

A complete file, about what theory II.6 proves::

    import jax.numpy as jnp

    from pmt import SingleHead
    from pmt.stability import jacobian

    text = "with a causal mask, v_1 consensus is stable for every step if lambda_d > -lambda_1"
    shapes = [(3, 2), (4, 3)]
    LOWEST = -0.95  # of lambda_l / lambda_1


    def generator(noise, shape):
        ratios = LOWEST + (0.95 - LOWEST) * noise.uniforms(shape.d - 1)
        return {
            "eigenvalues": noise.uniform(0.5, 2.0) * jnp.concatenate([jnp.ones(1), ratios]),
            "query_key": noise.normal(shape.d, shape.d),
            "alpha": noise.log_uniform(0.01, 10.0),
            "tokens": jnp.zeros((shape.n, shape.d)).at[:, 0].set(1.0),
        }


    def hypotheses(case):
        first, others = case["eigenvalues"][0], case["eigenvalues"][1:]
        v1 = jnp.eye(case["eigenvalues"].shape[0])[:1]
        return {
            "alpha > 0": case["alpha"],
            "lambda_1 > 0": first,
            "lambda_1 > lambda_l": 1.0 - jnp.max(others) / first,
            "lambda_l > LOWEST lambda_1": jnp.min(others) / first - LOWEST + 1e-9,
            "consensus at v_1": 1e-9 - jnp.max(jnp.abs(case["tokens"] - v1)),
        }


    def margin(case):
        value, x = jnp.diag(case["eigenvalues"]), case["tokens"]
        system = SingleHead(value, case["query_key"], case["alpha"], mask="causal")
        n, d = x.shape
        tangent = jacobian.intrinsic(system, x).reshape(n, d - 1, n, d - 1)
        # No token sees a later one, so the multipliers are those of the diagonal blocks.
        blocks = tangent[jnp.arange(n), :, jnp.arange(n)]
        return 1.0 - jnp.max(jnp.abs(jnp.linalg.eigvalsh(blocks)))

With ``LOWEST = -3.0`` it is false, and ``pmt verify --file mine.py --hunt`` finds an instance.
"""

import hashlib
import linecache
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pmt.errors import RequestError
from theory import instances, noise
from theory.margin import Margin
from theory.results import Evaluated
from theory.statement import Case, Clause, Form, Hypotheses, Piece, Shape, Statement, Status

TOLERANCE = 1e-9

CLAUSE = "conjecture"

NO_MARGIN = -1.5e300
"""Below every margin: marks of what is no margin, which ``inspect`` explains."""

_NOT_A_NUMBER = -3e300
_OUTSIDE = -2e300

_SHAPES = ((2, 2), (3, 2), (4, 3))
_LARGEST = 32
_MASKS = get_args(Shape.__annotations__["mask"])


@dataclass(frozen=True)
class Conjecture:
    """A conjecture read from a file.

    Attributes:
    ----------
    statement
        In the form that ``theory.verify`` and ``theory.hunt`` take; the conjecture is its
        corrected form, since there is no paper's.
    path, sha256
        The file, and the hash of its content.
    lines
        Where in the file each of its functions begins.
    named
        Whether the file names its hypotheses.
    """

    statement: Statement
    path: Path
    sha256: str
    lines: Mapping[str, int]
    named: bool

    def check(self) -> None:
        """Traces both functions at every shape, computing nothing.

        Raises:
        ------
        RequestError
            With file and line, where the code fails or returns something else than it should.
        """
        clause = self.statement.corrected.clauses[0]

        def one(shape: Shape, uniform: Any, normal: Any) -> Any:
            case = instances.draw(clause.hypotheses, noise.Raw(uniform, normal), 0, shape)
            return clause.conclusion(shape, case), clause.hypotheses.margins(shape, case)

        with jax.enable_x64(True):
            source = [
                jax.ShapeDtypeStruct((2, size), jnp.result_type(float))
                for size in (noise.UNIFORMS, noise.NORMALS)
            ]
            for shape in clause.hypotheses.shapes:
                jax.eval_shape(jax.vmap(partial(one, shape)), *source)

    def inspect(
        self, _clause: Clause, shape: Shape, cases: Mapping[str, np.ndarray], values: np.ndarray
    ) -> None:
        """Refuses margins that are no numbers, among evaluated instances.

        Raises:
        ------
        RequestError
            With the line of ``margin``, and the first such instance.
        """
        wrong = np.flatnonzero(values == _NOT_A_NUMBER)
        if len(wrong):
            case = {name: np.asarray(value)[wrong[0]].tolist() for name, value in cases.items()}
            self._refuse(
                "margin",
                f"the margin is not a number at n = {shape.n}, d = {shape.d}, {case}"[:300],
            )

    def inspect_violation(self, found: Evaluated) -> None:
        """The same for one violation, and that it satisfies the file's own hypotheses."""
        shape, case, value = found.shape, found.case, found.value
        if value == _OUTSIDE:
            pieces = self.statement.corrected.clauses[0].hypotheses
            with jax.enable_x64(True):
                margins = pieces.margins(shape, {k: jnp.asarray(v) for k, v in case.items()})
            broken = [name for name, margin in margins.items() if not float(margin) >= 0]
            self._refuse(
                "generator",
                f"generator draws an instance outside the hypothesis {' and '.join(broken)}; "
                "make it draw only what the hypotheses allow",
            )
        self.inspect(
            self.statement.corrected.clauses[0],
            shape,
            {name: np.asarray(array)[None] for name, array in case.items()},
            np.array([value]),
        )

    def _refuse(self, function: str, what: str) -> None:
        raise RequestError(f"{self.path}, line {self.lines[function]}: {what}")


def load(path: Path) -> Conjecture:
    """Runs the file and returns its conjecture.

    Raises:
    ------
    RequestError
        Where the file cannot be read, does not run, or does not state a conjecture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise RequestError(message) from error
    names = _run(path, content)
    lines = {}
    for name in ("generator", "margin", "hypotheses"):
        function = names.get(name)
        if function is None and name == "hypotheses":
            continue
        if not callable(function):
            message = (
                f"{path}: there is no function {name}; a conjecture's file defines "
                "generator(noise, shape) and margin(case)"
            )
            raise RequestError(message)
        code = getattr(function, "__code__", None)
        lines[name] = 1 if code is None else code.co_firstlineno
    reader = _Reader(path, names, lines)
    text = names.get("text", names.get("__doc__")) or f"the conjecture in {path.name}"
    statement = Statement(
        id=path.stem,
        source=path.name,
        text=" ".join(str(text).split()),
        paper=None,
        corrected=Form(
            text=" ".join(str(text).split()),
            expected=reader.expected(),
            clauses=(
                Clause(
                    name=CLAUSE,
                    text=" ".join(str(text).split()),
                    hypotheses=Hypotheses((Piece(reader.draw, reader.margins),), reader.shapes()),
                    conclusion=reader.conclusion,
                ),
            ),
        ),
    )
    sha256 = hashlib.sha256(content).hexdigest()
    return Conjecture(statement, path, sha256, lines, "hypotheses" in lines)


def _run(path: Path, content: bytes) -> dict[str, Any]:
    """The names that the file defines."""
    name = str(path)
    try:
        code = compile(content, name, "exec")
    except SyntaxError as error:
        message = f"{path}, line {error.lineno}: {error.msg}; a conjecture's file is Python"
        raise RequestError(message) from error
    except ValueError as error:
        message = f"{path} is not Python ({error})"
        raise RequestError(message) from error
    # A line of the file as it was run, should it change while this goes on.
    text = content.decode("utf-8", "replace")
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module = types.ModuleType("pmt_conjecture")
    module.__file__ = name
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise _located(path, error, 1) from error
    return module.__dict__


def _located(path: Path, error: BaseException, default: int) -> RequestError:
    """The error as one sentence, with the innermost line of the file that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    summary = " ".join(str(error).split("\n", 1)[0].split())
    what = f"{type(error).__name__}: {summary}" if summary else type(error).__name__
    return RequestError(f"{path}, line {lines[-1] if lines else default}: {what}")


class _Reader:
    """A file's functions in the form of a statement's, with their failures located."""

    def __init__(self, path: Path, names: Mapping[str, Any], lines: Mapping[str, int]) -> None:
        self._path, self._names, self._lines = path, names, lines

    def draw(self, source: Any, _kind: Any, shape: Shape, _case: Case) -> dict[str, Any]:
        """The instance, its fields as arrays."""
        case = self._call("generator", source, shape)
        if not isinstance(case, dict) or not case or not all(isinstance(k, str) for k in case):
            self._refuse(
                "generator",
                f"generator returns {_kind_of(case)}, not a dictionary of arrays by name",
            )
        return {name: self._array("generator", f"field {name!r}", case[name]) for name in case}

    def margins(self, _shape: Shape, case: Case) -> dict[str, Any]:
        """What ``hypotheses`` returns, if there is one."""
        if "hypotheses" not in self._lines:
            return {}
        found = self._call("hypotheses", dict(case))
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            self._refuse("hypotheses", f"hypotheses returns {_kind_of(found)}, not margins by name")
        return {name: self._number("hypotheses", f"{name!r}", found[name]) for name in found}

    def conclusion(self, shape: Shape, case: Case) -> Margin:
        """The margin; marks where it is no number, or a hypothesis of the file's own fails."""
        found = self._call("margin", dict(case))
        pair = found if isinstance(found, tuple) else (found, TOLERANCE)
        if len(pair) != 2:
            self._refuse(
                "margin",
                f"margin returns {len(pair)} values, not a margin or a margin and its tolerance",
            )
        value = self._number("margin", "the margin", pair[0])
        tolerance = jnp.abs(self._number("margin", "the tolerance", pair[1]))
        wrong = ~(jnp.isfinite(value) & jnp.isfinite(tolerance))
        value = jnp.where(wrong, _NOT_A_NUMBER, value)
        tolerance = jnp.where(wrong, 0.0, tolerance)
        for margin in self.margins(shape, case).values():
            value = jnp.where(margin >= 0, value, _OUTSIDE)
        return Margin(value, tolerance)

    def expected(self) -> Status:
        """``supported`` if the file does not say."""
        given = self._names.get("expected", "supported")
        if given not in ("supported", "refuted"):
            message = f"{self._path}: expected is {given!r}, and must be 'supported' or 'refuted'"
            raise RequestError(message)
        return given

    def shapes(self) -> tuple[Shape, ...]:
        """As the file gives them."""
        given = self._names.get("shapes", _SHAPES)
        try:
            found = tuple(one if isinstance(one, Shape) else Shape(*one) for one in given)
        except TypeError:
            found = ()
        sizes = [size for one in found for size in (one.n, one.d, one.h)]
        fine = all(type(size) is int and 1 <= size <= _LARGEST for size in sizes)
        if not found or not fine or any(one.mask not in _MASKS for one in found):
            message = (
                f"{self._path}: shapes is {given!r}, and must be a list of (n, d), (n, d, h) or "
                f"Shape with sizes from 1 to {_LARGEST}"
            )
            raise RequestError(message)
        return found

    def _call(self, name: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = self._names[name]
        try:
            return function(*arguments)
        except Exception as error:
            raise _located(self._path, error, self._lines[name]) from error

    def _array(self, name: str, what: str, value: Any) -> Any:
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError):
            array = None
        if array is None or not (
            jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
        ):
            self._refuse(name, f"{what} is {_kind_of(value)}, not an array of real numbers")
        return array

    def _number(self, name: str, what: str, value: Any) -> Any:
        array = self._array(name, what, value)
        if array.shape != ():
            self._refuse(name, f"{what} has the shape {array.shape} and must be one number")
        return array.astype(jnp.result_type(float))

    def _refuse(self, name: str, what: str) -> None:
        raise RequestError(f"{self._path}, line {self._lines[name]}: {what}")


def _kind_of(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return f"a {type(value).__name__}" if dtype is None else f"an array of {dtype}"
