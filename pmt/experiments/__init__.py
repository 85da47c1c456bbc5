"""Experiments: a frozen config, a result with everything in it, and its JSON form."""

from pmt.experiments.analysis import (
    Analysis,
    AnalysisConfig,
    LayerAnalysis,
    ModelInfo,
    NullAlignment,
    count_of_steps,
    describe,
)
from pmt.experiments.layer_by_layer import Layered, analyze
from pmt.experiments.record import analysis_json, repeat_json
from pmt.experiments.repeat import RepeatConfig, Repetition, repeat_layer
from pmt.experiments.tokens import load_tokens, prepare_tokens, random_tokens

__all__ = [
    "Analysis",
    "AnalysisConfig",
    "LayerAnalysis",
    "Layered",
    "ModelInfo",
    "NullAlignment",
    "RepeatConfig",
    "Repetition",
    "analysis_json",
    "analyze",
    "count_of_steps",
    "describe",
    "load_tokens",
    "prepare_tokens",
    "random_tokens",
    "repeat_json",
    "repeat_layer",
]
