"""Flax NNX transformers with the weights of Hugging Face checkpoints."""

from pmt.models.bert import BertConfig
from pmt.models.config import Dimensions
from pmt.models.pretrained import FAMILIES, Layers, from_pretrained, open_layers
from pmt.models.saving import save_pretrained
from pmt.models.tokens import Tokenizer, Tokens
from pmt.models.transformer import Output, Transformer

__all__ = [
    "FAMILIES",
    "BertConfig",
    "Dimensions",
    "Layers",
    "Output",
    "Tokenizer",
    "Tokens",
    "Transformer",
    "from_pretrained",
    "open_layers",
    "save_pretrained",
]
