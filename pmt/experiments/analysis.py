"""What an analysis of a checkpoint's layers is asked for, and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pmt.errors import RequestError
from pmt.experiments.first_order import FirstOrder
from pmt.linalg import check_order
from pmt.numerics import require_count
from pmt.spectral import Alignment, Average, Spectrum

NULLS = ("gaussian", "rotated")


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
      leading: how many leading eigenpairs of each layer are found, by a Krylov method; all of them,
        by LAPACK, if None. With it there are no averages over all eigendirections.
    """

    order: str = "real"
    alpha: float = 1.0
    prompts: int = 100
    tokens: int = 10
    seed: int = 0
    nulls: tuple[str, ...] = NULLS
    draws: int = 5
    leading: int | None = None

    def __post_init__(self) -> None:
        check_order(self.order, self.alpha)
        if self.leading is not None:
            require_count("leading", self.leading, 1)
        unknown = sorted(set(self.nulls) - set(NULLS))
        if unknown:
            raise RequestError(f"there is no null model {unknown[0]!r}; there are {NULLS}")
        if self.draws < 1:
            raise RequestError(f"draws is {self.draws}; it must be at least 1")

    @classmethod
    def like(cls, config: Any, **others: Any) -> "AnalysisConfig":
        """With what another config has by the same names, and with ``others``."""
        names = {field.name for field in fields(cls)} & set(vars(config))
        return cls(**{name: getattr(config, name) for name in names} | others)

    def draws_of(self, null: str) -> int:
        """How often that null model is drawn."""
        return self.draws if null in self.nulls else 0


@dataclass(frozen=True)
class ModelInfo:
    """What the layers belong to; ``shared`` where some of them have the same weights."""

    name: str
    family: str
    d: int
    h: int
    layers: int
    shared: bool
    revision: str | None
    sha256: str | None


@dataclass(frozen=True)
class NullRho:
    """rho of the tokens under a null model with its own principal direction; mean over draws.

    Attributes:
      rho: the mean; se: its standard error, over prompts and over draws in quadrature (None for a
        single prompt); sd: standard deviation between draws (None for a single one).
      ratio, ratio_se, ratio_sd: the same of rho / chance, every draw by the chance level of its
        own direction.
      draws: how many.
      dimension: 1 or 2; None where the draws differ in it.
    """

    rho: float
    se: float | None
    sd: float | None
    ratio: float
    ratio_se: float | None
    ratio_sd: float | None
    draws: int
    dimension: int | None


@dataclass(frozen=True)
class NullAlignment:
    """Tokens under a null model, with its own principal direction; means over its draws.

    Attributes:
      delta_rho, p_increase: as for the layer itself.
      se: standard error of ``delta_rho``: over prompts, and over draws if there are several, added
        in quadrature; None for a single prompt.
      sd: standard deviation of ``delta_rho`` between draws; None for a single one.
      draws: how many.
      dimension: 1 or 2, that of its principal direction; None where draws differ in it.
      after: rho of the states after the layer.
    """

    delta_rho: float
    p_increase: float
    se: float | None
    sd: float | None
    draws: int
    dimension: int | None
    after: NullRho

    @classmethod
    def of_record(cls, said: Mapping[str, Any]) -> "NullAlignment":
        """From what ``dataclasses.asdict`` made of it.

        Raises:
          TypeError, KeyError: it was something else.
        """
        return cls(**{**said, "after": NullRho(**said["after"])})


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer: its spectrum, and the tokens before and after it.

    Attributes:
      index: from 1.
      mask, scale: of its attention.
      principal: all eigenvalues in the order asked for, or the leading ones, and the principal
        direction.
      alignment: with the principal direction.
      average: over all eigendirections, conjugate pairs counted twice; None where only the leading
        ones were asked for.
      chance: of a uniform token with the principal direction.
      plane, plane_chance: the alignment with the plane of v_1 and v_2, in Case 3 only.
      null: name -> what a null model shows on the same tokens.
      intertoken_distance: mean chord between the tokens after the layer, mean over prompts.
    """

    index: int
    mask: str
    scale: float
    principal: Spectrum
    alignment: Alignment
    average: Average | None
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
      biases, rotary: whether the layers kept their biases and rotary positions.
      initial_distance: mean intertoken distance before the first layer.
      layers: one entry a layer.
      mode: ``"stripped"``, or ``"full"`` for the real model.
      counted: how many tokens count where texts are padded to one length; None where all do.
      texts: where they come from; None for tokens that are no texts.
      prompts_at_once: as many as the device had memory for; None where it had it for all.
      first_order: what the first-order law says of layer 1, or why there is none.
    """

    model: ModelInfo
    config: AnalysisConfig
    shape: tuple[int, int, int]
    dtype: str
    device: str
    biases: bool
    rotary: bool
    initial_distance: float
    layers: tuple[LayerAnalysis, ...]
    mode: Literal["stripped", "full"] = "stripped"
    counted: int | None = None
    texts: str | None = None
    prompts_at_once: int | None = None
    first_order: FirstOrder | None = None


def describe(model: Any) -> ModelInfo:
    """What a ``Transformer`` or the ``Layers`` of `pmt.models` say about themselves."""
    shape, checkpoint = model.dimensions, model.checkpoint
    schedule = getattr(model, "schedule", None)
    return ModelInfo(
        name="unnamed" if checkpoint is None else checkpoint.name,
        family=model.family,
        d=shape.d,
        h=shape.heads,
        layers=shape.layers,
        shared=model.shared if schedule is None else len(set(schedule)) < len(schedule),
        revision=None if checkpoint is None else checkpoint.revision,
        sha256=None if checkpoint is None else checkpoint.sha256,
    )


def count_of_steps(layers: int, config: AnalysisConfig) -> int:
    """What the calls that ``analyze`` makes of its ``progress`` add up to."""
    return layers * (2 + config.draws_of("gaussian"))
