"""Runs on the sphere in R³ as an animation: a GIF, the same bytes for the same result."""

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from pmt.experiments.sphere_runs import SphereRuns
from pmt.figures.sphere import View, choose_view, draw_ball, draw_paths, draw_points
from pmt.figures.style import PAGE, new_figure, styled
from pmt.figures.trajectory import token_colors

_DPI = 100
# Milliseconds of a frame, and of the last one before it begins again.
_FRAME, _LAST = 90, 2500
_COLORS = 128
# How much of the frames the bare passing of time takes; the rest go where tokens move most.
_IDLE = 0.25


def sphere_animation(result: SphereRuns) -> bytes:
    """The tokens of every run on their way over the sphere, side by side, as a GIF.

    Frames are not evenly spaced in time: three quarters of them go by how far the token moves that
    moves most, so that neither the first steps are missed nor the last ones waited for. The step
    that is shown stands below.
    """
    colors = token_colors(result.runs[0].path.shape[1])
    with styled():
        figure = new_figure(PAGE, PAGE / len(result.runs) + 0.45)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(_DPI)
        panels = np.atleast_1d(figure.subplots(1, len(result.runs)))
        drawn: list[tuple[Any, View, np.ndarray]] = []
        for axis, run in zip(panels, result.runs, strict=True):
            view = choose_view(run.path, run.axes)
            draw_ball(axis, view, run.axes, [f"$v_{k + 1}$" for k in range(run.axes.shape[1])])
            draw_points(axis, view, run.path[0], colors, filled=False)
            axis.set_title(f"{run.name}: ends {run.ending}")
            drawn.append((axis, view, run.path))
        canvas.draw()
        empty = canvas.copy_from_bbox(figure.bbox)
        clock = panels[0].text(-1.2, -1.2, "", va="center")
        images = []
        for step in _steps(result):
            canvas.restore_region(empty)
            clock.set_text(f"step {step}")
            panels[0].draw_artist(clock)
            for axis, view, path in drawn:
                artists = draw_paths(axis, view, path[: step + 1], colors)
                artists += draw_points(axis, view, path[step], colors, filled=True)
                for artist in sorted(artists, key=lambda each: each.get_zorder()):
                    axis.draw_artist(artist)
                    artist.remove()
            images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return _gif(images)


def _steps(result: SphereRuns) -> list[int]:
    """Which steps are shown: 0 first, and last the one where every run is settled."""
    end = max(1, *(min(run.settled, len(run.path) - 1) for run in result.runs))
    moved = np.max(
        [
            np.linalg.norm(np.diff(run.path[: end + 1], axis=0), axis=-1).max(axis=-1)
            for run in result.runs
        ],
        axis=0,
    )
    total = moved.sum()
    pace = _IDLE / end + (1 - _IDLE) * (moved / total if total > 0 else 1 / end)
    passed = np.concatenate([[0.0], np.cumsum(pace)])
    wanted = np.linspace(0, passed[-1], max(2, min(result.frames, end + 1)))
    chosen = {int(np.argmin(np.abs(passed - share))) for share in wanted}
    return sorted(chosen | {0, end})


def _gif(images: list[Image.Image]) -> bytes:
    """One palette for all frames, without dithering, which would flicker and not compress."""
    width, height = images[0].size
    shown = [images[0], images[len(images) // 2], images[-1]]
    montage = Image.new("RGB", (width, height * len(shown)))
    for number, image in enumerate(shown):
        montage.paste(image, (0, number * height))
    palette = montage.quantize(_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    stream = io.BytesIO()
    frames[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[_FRAME] * (len(frames) - 1) + [_LAST],
        loop=0,
        optimize=False,
    )
    return stream.getvalue()
