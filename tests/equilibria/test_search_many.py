"""Searches from many starts: what is found, once each, and with its class."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmt import sphere, stability
from pmt.attention import Causal, Rotary
from pmt.dynamics import LayerStack, MultiHead, SingleHead
from pmt.equilibria import (
    distance_modulo_symmetry,
    search_clusters,
    search_equilibria,
    search_many,
)
from pmt.errors import RequestError

# Theory II.10.
VALUE = np.diag([-1.0007, 1.5111])
# The same everywhere, so that the runs compile once.
STARTS = 32
LOGITS = np.array([[13.795, 6.484], [2.167, 1.241]])


@pytest.fixture(scope="module")
def system():
    return SingleHead(jnp.asarray(VALUE), jnp.asarray(LOGITS), alpha=0.2)


@pytest.fixture(scope="module")
def found(system):
    return search_equilibria(system, 2, starts=STARTS)


def test_every_class_of_lemma_8_is_found_once(system, found):
    kinds = [one.classification.kind for one in found.found]
    assert {"consensus", "bipartite", "clustering"} <= set(kinds)
    assert sum(one.settled for one in found.found) == found.starts - found.unsettled
    assert sum(one.solved for one in found.found) == found.starts - found.unsolved
    for one in found.found:
        assert one.residual < 1e-11
        for other in found.found:
            if other is not one:
                assert distance_modulo_symmetry(one.x, other.x) > 1e-4


def test_what_attracts_comes_first_and_is_stable(system, found):
    reached = [one for one in found.found if one.settled]
    assert reached == list(found.found[: len(reached)])
    for one in reached:
        assert stability.analyze(system, one.x).verdict == "stable"
    # Newton's method finds what no trajectory reaches.
    only_solved = [one for one in found.found if not one.settled]
    assert only_solved
    assert stability.analyze(system, only_solved[0].x).verdict == "unstable"


def test_the_stable_clustering_of_theory_ii_10(system):
    clusterings = search_clusters(system, 2, starts=STARTS)
    best = clusterings[0]
    assert best.classification.cluster_count == 2 and best.settled > 0
    answer = stability.analyze(system, best.x)
    assert answer.verdict == "stable"
    assert answer.spectral_radius == pytest.approx(0.948, abs=1e-3)
    angles = np.radians([106.086, -60.876])
    expected = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # The matrices are given to four digits only.
    assert distance_modulo_symmetry(best.x, expected) < 5e-4


def test_symmetric_copies_are_the_same_state():
    x = sphere.uniform(jax.random.key(0), (4, 3))
    for copy in (x[::-1], -x, -x[jnp.array([2, 0, 3, 1])]):
        assert distance_modulo_symmetry(x, copy) < 1e-15
    assert distance_modulo_symmetry(x, x[::-1], permute=False) > 0.1
    assert distance_modulo_symmetry(x, -x, permute=False) < 1e-15


def test_permutations_are_a_symmetry_of_full_attention_without_positions_only(system):
    causal = dataclasses.replace(system, mask=Causal())
    heads = MultiHead.from_maps(VALUE[None], LOGITS[None])
    turned = dataclasses.replace(heads, rotary=Rotary(jnp.array([1.0])))
    alike = [search_many._tokens_are_alike(s) for s in (system, heads, causal, turned)]
    assert alike == [True, True, False, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 2, "starts": 0}, "starts is 0"),
        ({"tokens": 2, "tolerance": 1.0}, "tolerance is 1.0"),
    ],
)
def test_bad_requests(system, arguments, words):
    with pytest.raises(RequestError, match=words):
        search_equilibria(system, **arguments)


def test_a_stack_has_no_equilibria():
    heads = MultiHead.from_maps(VALUE[None], LOGITS[None])
    with pytest.raises(RequestError, match="LayerStack"):
        search_equilibria(LayerStack.from_layers([heads]), 2)


def test_without_logits_there_are_no_clusterings():
    """Lemma 1: consensus, bipartite or polygonal, nothing else."""
    oja = SingleHead(jnp.diag(jnp.array([1.0, 0.4])), jnp.zeros((2, 2)), alpha=0.3)
    assert search_clusters(oja, 2, starts=STARTS) == ()
