"""All thirteen models of the paper, built from their published configs without any numbers."""

import math

import jax.numpy as jnp
import pytest
from flax import nnx

from pmt.attention import Causal, Full, LocalWindow
from pmt.models import FAMILIES
from pmt.models.loading import skeleton
from tests.models.paper_configs import CONFIGS, TABLE_1


def count(raw):
    """How many parameters the published architecture has with its language head, by hand."""
    kind, vocabulary = raw["model_type"], raw["vocab_size"]
    d = raw.get("hidden_size") or raw["n_embd"]
    inner = raw.get("intermediate_size") or 4 * d
    block = 4 * d * d + d + 2 * d * inner + inner + d + 4 * d
    block += 0 if kind == "gpt_neo" else 3 * d
    layers = raw.get("num_hidden_layers") or raw.get("n_layer") or raw["num_layers"]
    positions = raw.get("max_position_embeddings") or raw["n_positions"]
    if kind.startswith("gpt"):
        return (vocabulary + positions) * d + layers * block + 2 * d
    e = raw.get("embedding_size", d)
    embeddings = (vocabulary + positions + 2) * e + 2 * e + (e * d + d if kind == "albert" else 0)
    head = d * e + e + 2 * e + vocabulary
    return embeddings + (1 if kind == "albert" else layers) * block + head


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_and_the_number_of_parameters_come_out_of_the_published_config(name):
    raw = CONFIGS[name]
    family = FAMILIES[raw["model_type"]]
    config = family.read_config(raw)
    sizes = config.dimensions
    assert (sizes.d, sizes.heads, sizes.layers) == TABLE_1[name]
    model = skeleton(family, config, frozenset({"head"}), jnp.float32)
    state = {
        ".".join(map(str, path)): leaf.shape
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    assert sum(map(math.prod, state.values())) == count(raw)
    rules = family.table(config, frozenset({"head"}))
    assert sorted(rule.parameter for rule in rules) == sorted(state)
    shared = name.startswith("albert")
    assert len(model.blocks) == (1 if shared else sizes.layers)
    assert len(model.schedule) == sizes.layers
    masks = [model.layer(index).attention.mask for index in (0, 1)]
    if name.startswith("gpt-neo"):
        assert masks == [Causal(), LocalWindow(256)]
        assert model.layer(0).attention.scale == 1.0
    else:
        assert masks == [Full()] * 2 if "bert" in name else [Causal()] * 2
        assert model.layer(0).attention.scale == pytest.approx((sizes.d / sizes.heads) ** -0.5)
