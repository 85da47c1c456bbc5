"""The options by which a command is told a state: a named point or a file of tokens."""

from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Annotated, Any

import typer

from pmt.cli.options import at_most_one, number
from pmt.cli.reading import read_npy
from pmt.errors import RequestError

NAMED = ("consensus", "bipartite", "polygonal")

Index = Annotated[
    int | None,
    typer.Option(
        "--index",
        min=1,
        metavar="K",
        help="Along which eigenvector v_K of the layer matrix, counted from 1 by decreasing real "
        "part of the eigenvalue; 1 if not given.",
        show_default=False,
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option("--tokens", min=1, metavar="N", help="Number of tokens.", show_default=False),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="N1,N2",
        help="Bipartite: N1 tokens at v_K, then N2 at -v_K.",
        show_default=False,
    ),
]
Signs = Annotated[
    str | None,
    typer.Option(
        "--signs",
        metavar="+-+-",
        help="Bipartite: the side of every token, where their order matters (masks).",
        show_default=False,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        parser=number(above=0.0, below=1.0),
        metavar="X",
        help="Chord within which tokens count as equal; 64 roots of eps if not given.",
        show_default=False,
    ),
]

# Entries of all attention matrices together, 2 GB in float64.
_MOST_WEIGHTS = 2**28


@dataclass(frozen=True)
class Placement:
    """What the options said about a state, as they are.

    Attributes:
      name: one of `NAMED` or the path of a `.npy` file with one token a row.
      index, tokens, split, signs: as the options; None where not given.
    """

    name: str
    index: int | None = None
    tokens: int | None = None
    split: str | None = None
    signs: str | None = None

    @property
    def is_named(self) -> bool:
        """Whether it is a point of the theory and not a file."""
        return self.name in NAMED

    def check(self) -> None:
        """Refuse options that contradict each other or the kind of state.

        Raises:
          RequestError: naming both.
        """
        at_most_one({"--tokens": self.tokens, "--split": self.split, "--signs": self.signs})
        allowed = {
            "consensus": {"--index", "--tokens"},
            "bipartite": {"--index", "--tokens", "--split", "--signs"},
            "polygonal": {"--tokens"},
            "random": {"--tokens"},
        }.get(self.name, set())
        given = {
            "--index": self.index,
            "--tokens": self.tokens,
            "--split": self.split,
            "--signs": self.signs,
        }
        for option, value in given.items():
            if value is not None and option not in allowed:
                named = self.is_named or self.name == "random"
                what = f"a {self.name} state" if named else f"the tokens in {self.name}"
                message = f"{option} says nothing about {what}; leave it out"
                raise RequestError(message)

    def equilibrium(self, system: Any, mask_size: int | None, default: int = 2) -> Any:
        """The named point as a `pmt.equilibria.Equilibrium`.

        Args:
          system: an autonomous map.
          mask_size: the number of tokens that the mask is for, if it is a matrix.
          default: number of tokens of a consensus or bipartite point where nothing else says it.

        Raises:
          RequestError: no such point, or options that make no sense.
        """
        from pmt import equilibria

        tokens = self.tokens or mask_size
        if self.name == "polygonal":
            require_affordable(system, tokens or 2)
            return equilibria.polygonal(system, tokens)
        index = _eigen_index(system, self.index or 1)
        if self.name == "consensus":
            require_affordable(system, tokens or default)
            return equilibria.consensus(system, index, tokens or default)
        signs = self._signs(system, tokens or default)
        return equilibria.bipartite(system, index, signs=signs)

    def _signs(self, system: Any, tokens: int) -> list[int]:
        if self.signs is not None:
            if set(self.signs) != {"+", "-"}:
                message = f"--signs is {brief(self.signs)}; it must be made of + and -, with both"
                raise RequestError(message)
            require_affordable(system, len(self.signs))
            return [1 if sign == "+" else -1 for sign in self.signs]
        if self.split is not None:
            sizes = list(split_sizes(self.split))
        else:
            sizes = [tokens - tokens // 2, tokens // 2]
            if min(sizes) < 1:
                message = f"a bipartite point needs two tokens at least; there is {tokens}"
                raise RequestError(message)
        require_affordable(system, sum(sizes))
        return [1] * sizes[0] + [-1] * sizes[1]


def split_sizes(text: str) -> tuple[int, int]:
    """What --split says: tokens on the one side and on the other, each at least 1.

    Raises:
      RequestError: anything else.
    """
    parts = text.split(",")
    plain = len(parts) == 2 and all(each.isascii() and each.isdigit() for each in parts)
    sizes = [int(each[:9]) for each in parts] if plain else [0]
    if min(sizes) < 1:
        message = f"--split is {brief(text)}; it must be two counts such as 3,2, each at least 1"
        raise RequestError(message)
    return sizes[0], sizes[1]


def read_tokens(path: Path, dimension: int, dtype: str) -> tuple[Any, str | None]:
    """Unit tokens ``(n, d)`` from a `.npy` file, and a remark where its rows were not unit ones.

    Raises:
      RequestError: another shape, a non-finite number or a zero row, in one sentence.
      OSError: a file that cannot be opened.
    """
    import numpy as np

    array = np.asarray(read_npy(path), np.float64)
    if array.ndim != 2 or array.shape[1] != dimension:
        message = (
            f"{path} has shape {array.shape}; it must hold one token a row, "
            f"(n, {dimension}) for this system"
        )
        raise RequestError(message)
    largest = np.max(np.abs(array), axis=1)
    for bad, what in ((~np.isfinite(largest), "is not finite"), (largest == 0, "is zero")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            message = f"row {row + 1} of {path} {what}; every token must be a direction"
            raise RequestError(message)
    scaled = array / largest[:, None]
    lengths = np.linalg.norm(scaled, axis=1)
    off = np.abs(lengths * largest - 1.0)
    remark = None
    # What a file in single precision is off by is not worth a word.
    if off.max() > 1e-5:
        remark = f"the rows of {path} have lengths that differ from 1; they were normalised"
    return (scaled / lengths[:, None]).astype(dtype), remark


def require_affordable(system: Any, tokens: int) -> None:
    """Refuse a number of tokens whose attention matrices would not fit into memory.

    Raises:
      RequestError: saying how many fit.
    """
    heads = system.value.shape[0] if system.value.ndim == 3 else 1
    if heads * tokens**2 > _MOST_WEIGHTS:
        most = int((_MOST_WEIGHTS / heads) ** 0.5)
        message = f"{tokens} tokens need too large an attention matrix; at most {most} fit here"
        raise RequestError(message)


def _eigen_index(system: Any, index: int) -> int:
    """`index`, counted from 1, as the library counts; complex directions are refused."""
    from pmt.spectral import eigenpairs, layer_matrix

    values = eigenpairs(layer_matrix(system)).values
    if index > len(values):
        message = f"--index is {index}, but there are only {len(values)} eigenvalues"
        raise RequestError(message)
    value = values[index - 1]
    if value.imag != 0:
        real = [str(k + 1) for k in range(len(values)) if values[k].imag == 0]
        those = f"; real ones: --index {', '.join(real[:8])}" if real else "; none here is real"
        message = (
            f"eigenvalue {index} of the layer matrix is complex ({value:.4g}), so tokens rotate "
            f"in its plane and no equilibrium lies along it{those}"
        )
        raise RequestError(message)
    return index - 1
