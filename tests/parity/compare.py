"""The live comparison of pmt with transformers on every model of tests/parity/data.

Run it where torch and transformers are installed (the extra `parity`), from the repository's root::

    python -m tests.parity.compare [--minilm DIRECTORY] [--pmt PYTHON]

For each model, and again with its config in the older form where there is one, four checks:

- stored: what the installed transformers computes now against expected.npz, within 1e-12;
- float64, float32: what pmt computes against transformers, within 1e-11 and 1e-5;
- written: pmt writes the model, transformers loads it with no tensor missing or left over, and all
  its results in float32 and in float64 equal those of the original bit by bit.

Errors are the largest at the tokens that are present, relative to the largest entry there, layer by
layer; the table shows the worst layer of each model. The exit status is 1 if anything missed.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.parity.configs import TINY
from tests.parity.generate import DATA, expected, minilm, older, real_texts, thinned
from tests.parity.reference import compute, load

TOLERANCE = {"stored": 1e-12, "float64": 1e-11, "float32": 1e-5}
CHECKS = (*TOLERANCE, "written")
Arrays = dict[str, np.ndarray]


@dataclass
class Case:
    """One checkpoint to compare on, and what was found."""

    label: str
    folder: Path
    kind: str
    given: Arrays
    reference: Arrays
    options: dict[str, Any]
    cells: dict[str, str] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)

    def note(self, check: str, errors: dict[str, float]) -> None:
        """Record the errors of a check, by layer."""
        where = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
        self.cells[check] = f"{errors[where]:.1e} {where}"
        for name, error in errors.items():
            if not error <= TOLERANCE[check]:
                self.miss(check, f"{name} is off by {error:.3g}, more than {TOLERANCE[check]:g}")

    def miss(self, check: str, why: str) -> None:
        """Record a failure."""
        if not self.cells.get(check, "").startswith("MISS"):
            self.cells[check] = f"MISS {self.cells.get(check, '')}"
        self.misses.append(f"{self.label}, {check}: {why}")


def errors(got: Arrays, wanted: Arrays, present: np.ndarray) -> dict[str, float]:
    """By layer or output, the largest error relative to the largest entry."""
    found = {}
    for name in ("hidden_states", "final", "logits", "pooled"):
        if name not in wanted:
            continue
        one = np.asarray(got[name], np.float64) if name in got else np.full(1, np.nan)
        if one.shape != wanted[name].shape:
            found[name] = np.nan
        elif name == "hidden_states":
            for layer, (a, b) in enumerate(zip(one, wanted[name], strict=True)):
                found[f"layer {layer}"] = relative(a[present], b[present])
        elif name in ("final", "logits"):
            found[name] = relative(one[present], wanted[name][present])
        else:
            found[name] = relative(one, wanted[name])
    return found


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest error over the largest entry; NaN anywhere gives NaN."""
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def stored_half(
    stack: contextlib.ExitStack, names: list[str], directory: Path | None
) -> list[Case]:
    """Every case with its reference computed now, compared with the stored one."""
    cases = []
    for name in names:
        tiny, stored = TINY[name], dict(np.load(DATA / name / "expected.npz"))
        given = {key: stored[key] for key in ("ids", "present", "segments") if key in stored}
        folders = {name: DATA / name}
        if tiny.older is not None:
            folders[f"{name}-older"] = stack.enter_context(older(DATA / name))
        for label, folder in folders.items():
            reference = expected(folder, tiny, given)
            case = Case(label, folder, tiny.cls, given, reference, tiny.options or {})
            case.note("stored", errors(reference, stored, given["present"]))
            if set(reference) | set(given) != set(stored):
                case.miss("stored", "there are other arrays in expected.npz")
            cases.append(case)
    if directory is not None:
        stored, given = dict(np.load(DATA / "minilm.npz")), real_texts(directory)
        reference = minilm(directory, given)
        case = Case("minilm", directory, "BertModel", given, reference, {})
        case.note("stored", errors(thinned(reference), stored, given["present"]))
        if not all(np.array_equal(given[key], stored[key]) for key in given):
            case.miss("stored", "the tokenizer splits the texts otherwise")
        cases.append(case)
    return cases


def pmt_half(cases: list[Case], python: str, work: Path) -> None:
    """Run pmt on every case, compare, and load what it wrote."""
    (work / "jobs.json").write_text(json.dumps({case.label: str(case.folder) for case in cases}))
    for case in cases:
        np.savez(work / f"{case.label}.npz", **case.given)
    environment = {"JAX_PLATFORMS": "cpu"} | os.environ
    subprocess.run([python, "-m", "tests.parity.outputs", str(work)], check=True, env=environment)
    for case in cases:
        failed = {check: work / f"{case.label}-{check}.error" for check in CHECKS[1:]}
        for check, path in failed.items():
            if path.exists():
                case.miss(check, f"pmt failed with\n{path.read_text()}")
        for dtype in ("float64", "float32"):
            if failed[dtype].exists():
                continue
            got = dict(np.load(work / f"{case.label}-{dtype}.npz"))
            # Post-norm families have no norm after the last block.
            wanted = {"final": case.reference["hidden_states"][-1]} | case.reference
            case.note(dtype, errors(got, wanted, case.given["present"]))
            found, sought = ({k: v.shape for k, v in one.items()} for one in (got, wanted))
            if found != sought:
                case.miss(dtype, f"the outputs are {found}, expected are {sought}")
            if any(value.dtype != dtype for value in got.values()):
                case.miss(dtype, "an output has another dtype")
        if not failed["written"].exists():
            written(case, work / f"{case.label}-written")


def written(case: Case, directory: Path) -> None:
    """Whether transformers finds in a written directory exactly the original model."""
    try:
        found, report = auto(case.kind).from_pretrained(
            directory, output_loading_info=True, attn_implementation="eager", **case.options
        )
    except Exception as error:
        case.miss("written", f"transformers does not load it: {error}")
        return
    original = getattr(transformers, case.kind).from_pretrained(
        case.folder, attn_implementation="eager", **case.options
    )
    if type(found) is not type(original):
        case.miss("written", f"it loads as {type(found).__name__}, not as {case.kind}")
        return
    for what, offenders in report.items():
        if offenders:
            case.miss("written", f"{what}: {sorted(map(str, offenders))}")
    given = case.given
    pairs = [(plain(found, given), plain(original, given))]
    doubles = (load(folder, cls=case.kind, **case.options) for folder in (directory, case.folder))
    inputs = given["ids"], given["present"], given.get("segments")
    pairs.append(tuple(compute(model, *inputs) for model in doubles))
    if all(np.array_equal(a[name], b[name]) for a, b in pairs for name in b):
        case.cells.setdefault("written", "identical")
    else:
        case.miss("written", "the results differ from the original's")


def auto(kind: str) -> Any:
    """The Auto class that a model's class belongs to."""
    for ending, name in {
        "MaskedLM": "AutoModelForMaskedLM",
        "PreTraining": "AutoModelForPreTraining",
        "ForCausalLM": "AutoModelForCausalLM",
        "LMHeadModel": "AutoModelForCausalLM",
    }.items():
        if kind.endswith(ending):
            return getattr(transformers, name)
    return transformers.AutoModel


def plain(model: torch.nn.Module, given: Arrays) -> Arrays:
    """What a model computes as its user runs it, in its own precision."""
    inputs = {"input_ids": given["ids"], "attention_mask": given["present"].astype(np.int64)}
    if "segments" in given:
        inputs["token_type_ids"] = given["segments"]
    with torch.no_grad():
        output = model.eval()(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in output.items() if torch.is_tensor(value)}


def show(cases: list[Case], checks: tuple[str, ...]) -> None:
    """The table, then every miss in full."""
    width = max(len(case.label) for case in cases)
    bounds = [f"{check} <{TOLERANCE[check]:g}" if check in TOLERANCE else check for check in checks]
    print("  ".join(["model".ljust(width), *(bound.ljust(19) for bound in bounds)]).rstrip())
    for case in cases:
        cells = [case.cells.get(check, "").ljust(19) for check in checks]
        print("  ".join([case.label.ljust(width), *cells]).rstrip())
    misses = [miss for case in cases for miss in case.misses]
    print("\n".join(["", *misses, f"{len(misses)} missed"] if misses else ["", "nothing missed"]))


def main() -> None:
    """Compare, show, and exit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models to compare on; all of them if none")
    parser.add_argument(
        "--minilm", type=Path, help="directory of the real model, to compare on too"
    )
    parser.add_argument("--pmt", default=sys.executable, help="the Python that has pmt installed")
    parser.add_argument("--reference-only", action="store_true", help="compare with the files only")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TINY):
        parser.error(f"no such models: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cases = stored_half(stack, arguments.names or list(TINY), arguments.minilm)
        if not arguments.reference_only:
            pmt_half(cases, arguments.pmt, work)
    show(cases, CHECKS[:1] if arguments.reference_only else CHECKS)
    sys.exit(any(case.misses for case in cases))


if __name__ == "__main__":
    main()
