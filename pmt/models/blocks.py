"""One transformer block: attention and feed-forward, with the norm after each or before each."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Bool, Float

from pmt.models.attention import SelfAttention


class PostNormBlock(nnx.Module):
    """x <- Norm(x + Attention(x)), x <- Norm(x + Mlp(x)): BERT and its kin."""

    def __init__(self, attention: SelfAttention, attention_norm: Any, mlp: Any, mlp_norm: Any):
        self.attention = attention
        self.attention_norm = attention_norm
        self.mlp = mlp
        self.mlp_norm = mlp_norm

    def __call__(self, x: Float[Array, "n d"], present: Bool[Array, "n"]) -> Float[Array, "n d"]:
        """The next state of a text."""
        x = self.attention_norm(x + self.attention(x, present))
        return self.mlp_norm(x + self.mlp(x))


class PreNormBlock(nnx.Module):
    """x <- x + Attention(Norm(x)), x <- x + Mlp(Norm(x)): GPT-2 and most decoders since.

    With ``parallel`` both branches start from the same state, x <- x + Attention(Norm(x)) +
    Mlp(Norm(x)), each with its own norm: GPT-NeoX.
    """

    def __init__(
        self,
        attention: SelfAttention,
        attention_norm: Any,
        mlp: Any,
        mlp_norm: Any,
        *,
        parallel: bool = False,
    ):
        self.attention = attention
        self.attention_norm = attention_norm
        self.mlp = mlp
        self.mlp_norm = mlp_norm
        self.parallel = parallel

    def __call__(self, x: Float[Array, "n d"], present: Bool[Array, "n"]) -> Float[Array, "n d"]:
        """The next state of a text."""
        attended = x + self.attention(self.attention_norm(x), present)
        return attended + self.mlp(self.mlp_norm(x if self.parallel else attended))
