"""What `pmt loop` shows: lines and tables of its results."""

from typing import TYPE_CHECKING, Any

from pmt.cli.answers import line

if TYPE_CHECKING:
    from pmt.experiments.loop_figure_1 import LoopFigure1
    from pmt.experiments.loop_figure_2 import LoopFigure2
    from pmt.experiments.loop_noise import LoopNoise
    from pmt.experiments.loop_norms import LoopNorms


def training_lines(result: "LoopFigure1", platform: str) -> list[str]:
    """What `pmt loop train` found."""
    import numpy as np

    training = result.training
    config, last = training.config, {n: v[-1] for n, v in training.history.items()}
    scores = np.abs(training.walk_scores)
    batch = "all samples" if config.full_batch else f"batch {config.batch}"
    if config.orbits:
        batch += f" of {_counted(config.drawn, 'sample')} and images"
    lines = [
        line(
            "model",
            f"d = {config.d}, n = {config.n}, L = {config.loops}, norm {config.norm}, "
            f"{config.start} start, {config.dtype} on {platform}",
        ),
        line(
            "training",
            f"{config.steps} steps of rate {config.rate:g}, {batch}, {config.draw} samples, "
            f"{_counted(config.seeds, 'seed')}; {training.seconds:.1f} s in this process",
        ),
        line("v, w", f"{_over_seeds(last['v'])}, {_over_seeds(last['w'])}"),
    ]
    if result.scalars is not None:
        path = result.scalars
        lines.append(
            line("two scalars", f"v, w = {path.v[-1]:.4g}, {path.w[-1]:.4g} at the same step")
        )
    for seed, pair in enumerate(result.exponents):
        if pair is not None:
            fitted = [f"{one.value:.3f} +- {one.half_width:.3f}" for one in pair]
            text = f"v {fitted[0]}, w {fitted[1]} (theory 1/4), seed {config.seed + seed}"
            lines.append(line("exponents", text))
    if result.down is not None:
        down = result.down
        lines.append(
            line(
                "saddle",
                f"curvature {_with_error(down.curvature)} along two blocks that stay at zero; "
                f"{down.size:g} that way the loss is {_with_error(down.gain)} below the power "
                "method's (test set)",
            )
        )
    moved = scores[np.isfinite(scores)]
    share = np.mean(moved <= 3.0) if len(moved) else np.nan
    return [
        *lines,
        line(
            "manifold",
            f"V off by {_over_seeds(last['off_value'])}, W by {_over_seeds(last['off_key'])}; "
            f"{share:.2%} of the entries that move within 3 deviations of the noise's walk",
        ),
        line(
            "loss",
            f"train {_over_seeds(last['train_loss'])}, test {_over_seeds(last['test_loss'])}, "
            f"power method {_over_seeds(training.power_loss)}",
        ),
        line(
            "angles",
            f"model to algorithm {_over_seeds(last['algorithm_angle'])}, model to truth "
            f"{_over_seeds(last['truth_angle'])}, algorithm to truth "
            f"{_over_seeds(training.power_angle)} (radians, test means)",
        ),
    ]


def repeated_lines(result: "LoopFigure2") -> list[str]:
    """One layer applied again and again: gaps and contraction, by norm."""
    reached = result.plateaus
    lines = [
        line("without Norm", f"gamma* = {_with_error(reached.gamma)} (one standard error)"),
        line(
            "",
            f"least loss on the manifold {_with_error(reached.manifold)}, with blocks split in two "
            f"halves {_with_error(reached.split)}",
        ),
    ]
    for norm, one in result.repeated.items():
        done = result.trainings[norm]
        last = {name: values[-1] for name, values in done.history.items()}
        lines += [
            line(norm, f"loss of one layer: test {_over_seeds(last['test_loss'])}"),
            line(
                "",
                f"contraction a loop {_over_seeds(one.factor)}; on the manifold, at rho = "
                f"{_over_seeds(last['v'] * last['w'])}, {_over_seeds(one.manifold_factor)}, "
                f"predicted {_over_seeds(one.predicted)}",
            ),
            line("", f"effective rank of V's block {_over_seeds(one.rank)} of {done.config.d}"),
            line(
                "",
                f"after {result.config.most_loops} loops: to the algorithm "
                f"{_over_seeds(one.algorithm_angle[-1])}, to the truth "
                f"{_over_seeds(one.truth_angle[-1])} (radians)",
            ),
        ]
    ratio = next(iter(result.repeated.values())).power
    return [
        *lines,
        line("predicted", f"R* = {_over_seeds(result.bound)}, lam_2/lam_1 = {_over_seeds(ratio)}"),
    ]


def _with_error(found: tuple[float, float]) -> str:
    return f"{found[0]:.5f} +- {found[1]:.5f}"


def norms_table(result: "LoopNorms") -> Any:
    """A row for every start and norm, at its best learning rate."""
    from rich.table import Table

    table = Table("start", "norm")
    for name in ("rate", "sin^2, test", "power method", "to algorithm", "off manifold", "rho"):
        table.add_column(name, justify="right")
    for row in result.rows:
        values = (row.test_loss, row.power_loss, row.algorithm_angle, row.off_share, row.rho)
        rate = f"{row.rate:g}{' (edge)' if row.edge else ''}"
        table.add_row(row.start, row.norm, rate, *(_over_seeds(each) for each in values))
    return table


def noise_lines(result: "LoopNoise") -> list[Any]:
    """A row for every number of samples, and the law they follow."""
    import numpy as np
    from rich.table import Table

    table = Table("samples")
    for name in ("count", "to algorithm", "on the manifold", "rho"):
        table.add_column(name, justify="right")
    laws = []
    for one in result.series:
        for at, count in enumerate(one.samples):
            values = (one.angle[at], one.manifold_angle[at], one.rho[at])
            table.add_row(one.draw, f"{count:,}", *(_over_seeds(each) for each in values))
        if not one.finite:
            text = "a run did not stay finite"
        elif np.isnan(one.slope):
            text = "too few runs above the manifold's own angle to fit"
        else:
            text = f"goes as samples^({one.slope:.2f} +- {one.slope_error:.2f} standard error)"
            if not np.isnan(one.needed):
                text += f"; 0.01 radians need about {one.needed:.2g} samples"
        laws.append(line(one.draw, text))
    return [table, *laws]


def _over_seeds(values: Any) -> str:
    """One number, or the range of the seeds."""
    low, high = float(values.min()), float(values.max())
    return f"{low:.4g}" if len(values) == 1 else f"{low:.4g}..{high:.4g}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
