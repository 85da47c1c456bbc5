"""What `pmt report` measures beyond the layers: a steered model, and a looped transformer."""

from typing import TYPE_CHECKING, Any

from pmt.errors import RequestError

if TYPE_CHECKING:
    from pmt.experiments.eigen_cache import Solver
    from pmt.report import Section

# The mean alignment that is asked for, and points of the dose-response curve.
_ALIGNMENT, _DOSES = 0.9, 9


def steered_model(name: str, seed: int, solver: "Solver") -> tuple[dict[str, Any], "Section"]:
    """The model's last layer steered to a random direction; what came out, and its section."""
    import numpy as np

    from pmt.experiments.plain_text import SOURCE, can_read, read_tokens, sentences
    from pmt.experiments.steer import SteerConfig, steer
    from pmt.experiments.steer_record import steering_json
    from pmt.figures import figure_bytes
    from pmt.figures.steering import steering as drawn
    from pmt.models import from_pretrained
    from pmt.report import Figure, Section
    from pmt.report import steering as section

    model = from_pretrained(name, dtype="float64")
    shared = len(set(model.schedule)) < len(model.schedule)
    config = SteerConfig(alignment=_ALIGNMENT, doses=_DOSES, seed=seed, all_layers=shared)
    toward = np.random.default_rng(seed).standard_normal(model.dimensions.d)
    text = read_tokens(model, sentences()) if can_read(model) else None
    try:
        result = steer(model, toward, config, text=text, solver=solver)
    except RequestError as error:
        # Such as a model whose layers leave the alignment out of reach.
        said = (f"This model was not steered: {error}.",)
        return {"refused": str(error)}, Section("steering", "A steered model", said)
    figure = Figure(
        "steering",
        "Above: alignment with the target and with each layer's principal direction, without "
        "(open) and with the edit of the last layer; the edited layer's principal direction is the "
        "target. Below: dose and response, predicted and measured, beside activation addition; and "
        "what both cost in the real model on plain text at equal alignment.",
        "Panels over layers, dose-response curve and cost of a steered model",
        figure_bytes(drawn(result)),
    )
    found = steering_json(
        result, f"a random direction (seed {seed})", None if text is None else SOURCE
    )
    return found, section(found, [figure])


def looped_transformer(seed: int) -> tuple[dict[str, Any], "Section"]:
    """The second paper's first figure in small: training, growth, and the power method."""
    from dataclasses import replace

    from pmt.experiments.loop_figure_1 import FIGURE_1_QUICK, loop_figure_1, training_json
    from pmt.figures import figure_bytes
    from pmt.figures.looped import loop_training
    from pmt.report import Figure
    from pmt.report import looped as section

    result = loop_figure_1(replace(FIGURE_1_QUICK, seed=seed))
    figure = Figure(
        "looped",
        "The trained matrices W and V, whose blocks off the manifold stay near zero; growth of w "
        "and v beside the two-scalar dynamics and the slope 1/4; losses; distance from the "
        "manifold beside what noise alone would do; and angles to the power method's answer and to "
        "the truth.",
        "Six panels: matrices, growth, loss, distance and angles of a looped transformer",
        figure_bytes(loop_training(result)),
    )
    found = training_json(result)
    return found, section(found, [figure])
