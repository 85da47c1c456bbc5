"""Flax NNX transformers with the weights of Hugging Face checkpoints."""

from pmt.models.bert import Bert, BertConfig, BertOutput
from pmt.models.pretrained import FAMILIES, from_pretrained

__all__ = ["FAMILIES", "Bert", "BertConfig", "BertOutput", "from_pretrained"]
