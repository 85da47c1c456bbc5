"""A checkpoint's layers in stripped mode: spectra, and how tokens align with them, layer by layer.

Stripped mode: x <- normalize(x + alpha * Attention(x)), with the layer's own weights and nothing
else of it (Sec. 3 and App. B of arXiv 2605.25619).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt import sphere
from pmt.attention import Boolean, Causal, Full
from pmt.dynamics import LayerStack, MultiHead, Outcome, simulate
from pmt.errors import RequestError
from pmt.experiments.nulls import apply_gaussian, apply_rotated, gaussian_maps, random_rotation
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.linalg import check_order
from pmt.spectral import (
    Alignment,
    Average,
    Principal,
    all_directions,
    as_directions,
    average_over_directions,
    chance,
    principal,
    rho,
    standard_error,
    summarize,
)

NULLS = ("gaussian", "rotated")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class AnalysisConfig:
    """What to do. Step size and tokens are as in the paper by default.

    Attributes:
      order: of the eigenvalues: ``"real"`` (the paper), ``"skip"`` or ``"modulus"``.
      alpha: step size; 1 in a trained transformer.
      prompts, tokens: how many random prompts, of how many tokens each.
      seed: of the random tokens and of the null models.
      nulls: which null models, of ``"gaussian"`` and ``"rotated"``.
      draws: how often each null model is drawn; they differ more from each other than the tokens
        make them differ.
    """

    order: str = "real"
    alpha: float = 1.0
    prompts: int = 100
    tokens: int = 10
    seed: int = 0
    nulls: tuple[str, ...] = NULLS
    draws: int = 4

    def __post_init__(self) -> None:
        check_order(self.order, self.alpha)
        unknown = sorted(set(self.nulls) - set(NULLS))
        if unknown:
            raise RequestError(f"there is no null model {unknown[0]!r}; there are {NULLS}")
        if self.draws < 1:
            raise RequestError(f"draws is {self.draws}; it must be at least 1")


@dataclass(frozen=True)
class ModelInfo:
    """What the layers belong to; ``shared`` where all layers have the same weights."""

    name: str
    family: str
    d: int
    h: int
    layers: int
    shared: bool
    revision: str | None
    sha256: str | None


@dataclass(frozen=True)
class NullAlignment:
    """Increments under a null model, with its own principal direction; means over its draws.

    Attributes:
      delta_rho, p_increase: as for the layer itself.
      se: standard error of ``delta_rho``: over prompts, and over draws if there are several, added
        in quadrature; None for a single prompt.
      dimension: 1 or 2, that of its principal direction; None where draws differ in it.
    """

    delta_rho: float
    p_increase: float
    se: float | None
    dimension: int | None


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer: its spectrum, and the tokens before and after it.

    Attributes:
      index: from 1.
      mask, scale: of its attention.
      principal: all eigenpairs in the order asked for, and the principal direction.
      alignment: with the principal direction.
      average: over all eigendirections, conjugate pairs counted twice.
      chance: of a uniform token with the principal direction.
      plane, plane_chance: the alignment with the plane of v_1 and v_2, in Case 3 only.
      null: name -> what a null model shows on the same tokens.
      intertoken_distance: mean chord between the tokens after the layer, mean over prompts.
    """

    index: int
    mask: str
    scale: float
    principal: Principal
    alignment: Alignment
    average: Average
    chance: float
    plane: Alignment | None
    plane_chance: float | None
    null: Mapping[str, NullAlignment]
    intertoken_distance: float


@dataclass(frozen=True)
class Analysis:
    """The result.

    Attributes:
      model, config: what was analysed, and how.
      shape: of the tokens, (prompts, n, d).
      dtype, device: of the run; eigenpairs are computed in float64 on the host whatever they are.
      biases: whether the layers kept theirs.
      initial_distance: mean intertoken distance before the first layer.
      layers: one entry a layer.
    """

    model: ModelInfo
    config: AnalysisConfig
    shape: tuple[int, int, int]
    dtype: str
    device: str
    biases: bool
    initial_distance: float
    layers: tuple[LayerAnalysis, ...]


def describe(model: Any) -> ModelInfo:
    """What a model from `pmt.models` says about itself."""
    config, checkpoint = model.config, model.checkpoint
    return ModelInfo(
        name="unnamed" if checkpoint is None else checkpoint.name,
        family=model.family,
        d=config.hidden_size,
        h=config.num_attention_heads,
        layers=config.num_hidden_layers,
        shared=False,
        revision=None if checkpoint is None else checkpoint.revision,
        sha256=None if checkpoint is None else checkpoint.sha256,
    )


def _unseen(done: int) -> None:
    del done


def count_of_steps(layers: int, config: AnalysisConfig) -> int:
    """How often ``analyze`` calls its ``progress``."""
    return layers * (2 + config.draws * ("gaussian" in config.nulls))


def analyze(
    stack: LayerStack,
    config: AnalysisConfig | None = None,
    *,
    model: ModelInfo | None = None,
    tokens: Any = None,
    progress: Progress = _unseen,
) -> Analysis:
    """Run tokens through the layers and measure their alignment with every layer's spectrum.

    Args:
      stack: the layers; their dtype is that of the run, their step size is replaced.
      config: the paper's settings if None.
      model: what the layers belong to, for the record.
      tokens: ``(prompts, n, d)``; they are normalised. Random ones if None.
      progress: called with 1 after every eigenproblem and every layer; see ``count_of_steps``.

    Raises:
      RequestError: weights that are not finite, tokens that cannot be used (see
        ``prepare_tokens``), a step size that the dtype cannot hold, or a state that has no
        successor: a token that cancelled to zero, or an overflow.
    """
    config = config or AnalysisConfig()
    stack = with_step_size(stack, config.alpha)
    dtype, d = stack.layers.query.dtype, stack.layers.query.shape[-1]
    if tokens is None:
        tokens = random_tokens(config.prompts, config.tokens, d, config.seed)
    x = prepare_tokens(tokens, d, dtype)
    spectra, gaussian = _spectra(stack, config, progress)
    layers = []
    initial = _distance(x)
    for index in range(stack.depth):
        layer = stack.layer(index)
        following = advance(layer, x, f"layer {index + 1}")
        bases = [drawn[index].basis for drawn in gaussian]
        layers.append(_layer(layer, index, (x, following), spectra[index], bases, config))
        x = following
        progress(1)
    return Analysis(
        model=model or _anonymous(stack),
        config=config,
        shape=(x.shape[0], x.shape[1], x.shape[2]),
        dtype=str(dtype),
        device=_device(x),
        biases=stack.layers.has_biases,
        initial_distance=initial,
        layers=tuple(layers),
    )


def with_step_size(stack: LayerStack, alpha: float) -> LayerStack:
    """The same layers with one step size.

    Raises:
      RequestError: one that overflows in the layers' dtype.
    """
    dtype = stack.layers.query.dtype
    with np.errstate(over="ignore"):
        fits = np.isfinite(np.asarray(alpha).astype(dtype))
    if not fits:
        raise RequestError(f"alpha is {alpha}, which {dtype} cannot hold; give a smaller one")
    return LayerStack(replace(stack.layers, alpha=jnp.full(stack.depth, alpha, dtype)))


def advance(layer: MultiHead, x: jax.Array, where: str) -> jax.Array:
    """One step for all prompts.

    Raises:
      RequestError: where a token has no next state.
    """
    run = simulate(layer, x, 1, keep="last", observables={})
    failed = np.flatnonzero(np.asarray(run.result) != Outcome.DONE)
    if len(failed):
        reason = Outcome(int(run.result[failed[0]])).message
        raise RequestError(
            f"in {where}, prompt {int(failed[0])} (counted from 0), {reason} ({len(failed)} of "
            f"{len(x)} prompts); choose another alpha or other tokens"
        )
    return run.x


def _spectra(
    stack: LayerStack, config: AnalysisConfig, progress: Progress
) -> tuple[tuple[Principal, ...], list[tuple[Principal, ...]]]:
    """Of every layer, and of every layer under each draw of the Gaussian null."""
    trained = principal(stack, config.order, config.alpha, progress)
    drawn = []
    for draw in range(config.draws if "gaussian" in config.nulls else 0):
        sums = [
            sum(gaussian_maps(stack.layer(index), config.seed, draw, index))
            for index in range(stack.depth)
        ]
        drawn.append(principal(np.stack(sums), config.order, config.alpha, progress))
    return trained, drawn


def _layer(
    layer: MultiHead,
    index: int,
    states: tuple[jax.Array, jax.Array],
    own: Principal,
    gaussian: list[np.ndarray],
    config: AnalysisConfig,
) -> LayerAnalysis:
    before, after = states
    dtype, d = before.dtype, before.shape[-1]
    null = {}
    if gaussian:
        maps = (gaussian_maps(layer, config.seed, draw, index) for draw in range(len(gaussian)))
        moved = (apply_gaussian(layer, heads, before) for heads in maps)
        null["gaussian"] = _null(before, zip(gaussian, moved, strict=True))
    if "rotated" in config.nulls:
        rotations = (random_rotation(d, config.seed, draw, index) for draw in range(config.draws))
        null["rotated"] = _null(
            before, ((r @ own.basis, apply_rotated(layer, r, before)) for r in rotations)
        )
    return LayerAnalysis(
        index=index + 1,
        mask=_mask_name(layer.mask),
        scale=float(layer.scale),
        principal=own,
        alignment=_alignment(own.basis, before, after),
        average=average_over_directions(before, after, all_directions(own.pairs, dtype)),
        chance=chance(d, own.dimension),
        plane=None if own.plane is None else _alignment(own.plane, before, after),
        plane_chance=None if own.plane is None else chance(d, 2),
        null=null,
        intertoken_distance=_distance(after),
    )


def _alignment(basis: np.ndarray, before: jax.Array, after: jax.Array) -> Alignment:
    directions = as_directions(basis, before.dtype)
    return summarize(*(_rho(x, directions)[..., 0] for x in (before, after)))


_rho = jax.jit(rho)


def _null(before: jax.Array, draws: Iterable[tuple[np.ndarray, jax.Array]]) -> NullAlignment:
    """From the basis of the principal direction and the next state of every draw."""
    increments, dimensions = [], set()
    for basis, after in draws:
        directions = as_directions(basis, before.dtype)
        low, high = (np.asarray(_rho(x, directions)[..., 0], np.float64) for x in (before, after))
        increments.append(high - low)
        dimensions.add(basis.shape[1])
    delta = np.stack(increments)
    over_prompts = standard_error(delta.mean(axis=0))
    over_draws = standard_error(delta.reshape(len(delta), -1)) or 0.0
    return NullAlignment(
        delta_rho=float(delta.mean()),
        p_increase=float(np.mean(delta > 0)),
        se=None if over_prompts is None else float(np.hypot(over_prompts, over_draws)),
        dimension=dimensions.pop() if len(dimensions) == 1 else None,
    )


def _distance(x: jax.Array) -> float:
    return float(np.asarray(_intertoken_distance(x), np.float64).mean())


_intertoken_distance = jax.jit(sphere.intertoken_distance)


def _mask_name(mask: Any) -> str:
    if isinstance(mask, Full):
        return "full"
    if isinstance(mask, Causal):
        return "causal"
    if isinstance(mask, Boolean):
        return "boolean"
    return f"{'causal' if bool(mask.causal) else 'two-sided'} window {int(mask.size)}"


def _anonymous(stack: LayerStack) -> ModelInfo:
    depth, heads, _, d = stack.layers.query.shape
    return ModelInfo("unnamed", "attention", d, heads, depth, False, None, None)


def _device(x: jax.Array) -> str:
    device = next(iter(x.devices()))
    return f"{device.platform} ({device.device_kind})"
