"""Run as a program in a process of its own: load a checkpoint once, and print what that took.

``python benchmarks/_load.py WAY DIRECTORY [FILE.npy]`` with WAY one of ``model``, ``layers`` and
``transformers``; the last runs in the peer's interpreter, so nothing else is imported at the top.
With a file, the logits of one text (or what stands for them) go there instead of a measurement.

One JSON object: ``load``, seconds until the call returns; ``ready``, seconds until every number was
added up once, since a loader that maps files has read nothing when it returns; ``processor``, the
same in processor seconds, which other work on the machine changes less; ``peak`` and
``private``, bytes above what the process held after its imports: at most, and at the end without
pages of mapped files. Bytes are None where the system does not tell (they are Linux's).
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TEXT = (7, 11, 50256, 3, 1024, 31, 7, 7, 20000, 42, 5, 9)


def memory(name: str) -> int:
    """One of the kernel's figures for this process, in bytes.

    The peak is VmHWM and not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def measured(load: Callable[[], Any], numbers: Callable[[Any], Any]) -> dict[str, Any]:
    """Seconds and bytes of ``load``, and of adding up every number of what it returned."""
    known = os.access(RESET, os.W_OK)
    gc.collect()
    if known:
        RESET.write_text("5")
        before, private = memory("VmRSS"), memory("RssAnon")
    started, used = time.perf_counter(), time.process_time()
    loaded = load()
    seconds = time.perf_counter() - started
    for array in numbers(loaded):
        array.sum()
    return {
        "load": seconds,
        "ready": time.perf_counter() - started,
        "processor": time.process_time() - used,
        "peak": memory("VmHWM") - before if known else None,
        "private": memory("RssAnon") - private if known else None,
    }


def model(directory: str, check: str | None) -> dict[str, Any]:
    """``pmt.models.from_pretrained``."""
    import jax
    import numpy as np
    from flax import nnx

    from pmt.models import from_pretrained

    if check is not None:
        np.save(check, np.asarray(from_pretrained(directory)(np.array(TEXT)).logits))
        return {}
    return measured(
        lambda: jax.block_until_ready(from_pretrained(directory)),
        lambda loaded: map(np.asarray, jax.tree.leaves(nnx.state(loaded, nnx.Param))),
    )


def layers(directory: str, check: str | None) -> dict[str, Any]:
    """``pmt.models.open_layers``, all layers read in turn and none kept.

    To check, the largest difference of a tensor from the one that is stored.
    """
    import jax
    import numpy as np

    from pmt.models import open_layers

    def read() -> list[Any]:
        with open_layers(directory) as opened:
            for index in range(opened.depth):
                for leaf in jax.tree.leaves(opened.layer(index)):
                    np.asarray(leaf).sum()
        return []

    if check is not None:
        np.save(check, _difference(directory))
        return {}
    return measured(read, lambda nothing: nothing)


def _difference(directory: str) -> float:
    import numpy as np
    from safetensors import safe_open

    from pmt.models import open_layers

    largest = 0.0
    with (
        open_layers(directory) as opened,
        safe_open(f"{directory}/model.safetensors", framework="numpy") as stored,
    ):
        for index in range(opened.depth):
            layer = opened.layer(index)
            base = f"transformer.h.{index}.attn"
            heads = [np.asarray(each) for each in (layer.query, layer.key, layer.value)]
            inputs = np.concatenate([each.reshape(-1, each.shape[-1]) for each in heads]).T
            outputs = np.moveaxis(np.asarray(layer.output), 1, -1).reshape(-1, inputs.shape[0])
            for name, found in (("c_attn", inputs), ("c_proj", outputs)):
                tensor = stored.get_tensor(f"{base}.{name}.weight")
                largest = max(largest, float(np.abs(tensor - found).max()))
    return largest


def transformers(directory: str, check: str | None) -> dict[str, Any]:
    """``transformers.AutoModelForCausalLM.from_pretrained``."""
    # Not the function of that name.
    from importlib import import_module

    import numpy as np
    import torch

    peer = import_module("transformers")
    peer.utils.logging.disable_progress_bar()
    # Its modules are imported when they are first asked for.
    load = peer.AutoModelForCausalLM.from_pretrained
    import_module("transformers.models.gpt2.modeling_gpt2")
    if check is not None:
        with torch.no_grad():
            logits = load(directory).eval()(torch.tensor([TEXT])).logits
        np.save(check, logits[0].numpy())
        return {}
    with torch.no_grad():
        found = measured(lambda: load(directory), lambda loaded: loaded.parameters())
    return found | {"versions": {"transformers": peer.__version__, "torch": torch.__version__}}


WAYS = {"model": model, "layers": layers, "transformers": transformers}

if __name__ == "__main__":
    way, folder, *file = sys.argv[1:]
    print(json.dumps(WAYS[way](folder, file[0] if file else None)))
