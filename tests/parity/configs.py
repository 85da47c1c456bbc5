"""The tiny random models of the parity data: two tables, every field off its default.

Each entry moves every field that changes a result, and moves it differently from its siblings: the
epsilon, the activation, the head counts, the scalings and biases that the family has, and whether
the output embeddings are the input ones. Dropout rates are off zero too, since they must not
change a result. Sizes keep a folder below 32 KB, the first two apart. The activation is a family's
default only where another entry of that family has a different one.

New entries go to the end of their table: an entry's place is its seed.
"""

from tests.parity.decoders import DECODERS
from tests.parity.encoders import ENCODERS
from tests.parity.tiny import Tiny

TINY: dict[str, Tiny] = ENCODERS | DECODERS

SEEDS: dict[str, int] = {
    name: seed
    for table, first in ((ENCODERS, 0), (DECODERS, 9))
    for seed, name in enumerate(table, first)
}
