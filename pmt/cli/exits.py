"""How a run of `pmt` ends: every failure becomes one sentence and one exit status."""

import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType

import typer

from pmt.cli.interrupts import heard_again
from pmt.errors import IncompleteError, Interrupted, RequestError
from pmt.memory import is_out_of_memory


class Status(IntEnum):
    """The exit statuses; a subcommand returns one of the first two, or nothing for `DONE`."""

    DONE = 0
    ANSWER_IS_NO = 1
    WRONG_REQUEST = 2
    INTERRUPTED = 3
    # Not 1, which is how Python ends on an exception and which means "no" here.
    FAULT = 70


# Called with the exit status once the last word is said: see `pmt.cli.hosts`.
AT_END: list[Callable[[int], None]] = []


@dataclass
class Call:
    """What is known about this run of `pmt` once its options are parsed."""

    debug: bool = False
    # What to reduce where there is no memory for it.
    smaller: str = "what was asked for"


def guarded(
    action: Callable[[Sequence[str] | None, Call], int], arguments: Sequence[str] | None
) -> int:
    """Run `action`, say in one sentence what went wrong if it fails, and return the status."""
    call = Call()
    _ensure_standard_streams()
    try:
        with _signals_as_exceptions(), heard_again():
            status = action(arguments, call)
            sys.stdout.flush()
    except typer.Exit as end:
        status = end.exit_code
    except SystemExit as end:
        # Rich turns a closed pipe into an exit with 1, which means "no" here.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        status = Status.INTERRUPTED
    except (Exception, KeyboardInterrupt) as error:
        if call.debug:
            _say(traceback.format_exc().rstrip())
        status, sentence = _explain(error, call)
        if sentence:
            _say(f"pmt: {sentence}")
    status = _after_last_output(status)
    for act in AT_END:
        act(status)
    return status


def _explain(error: BaseException, call: Call) -> tuple[Status, str]:
    if is_out_of_memory(error):
        # Resumable, in what is resumed at all, on another device or with less.
        return Status.INTERRUPTED, (
            f"the device has not enough memory for this; reduce {call.smaller}, or choose another "
            "--device; no file was left half-written"
        )
    match error:
        case typer.TyperException():
            return Status.WRONG_REQUEST, _usage_sentence(error)
        case RequestError():
            return Status.WRONG_REQUEST, str(error)
        case IncompleteError():
            return Status.INTERRUPTED, str(error)
        case KeyboardInterrupt():
            return Status.INTERRUPTED, str(error) or "interrupted; no file was left half-written"
        case typer.Abort():
            return Status.INTERRUPTED, "interrupted at the prompt"
        case BrokenPipeError():
            # The reader has what it wanted (`pmt ... | head -1`) and needs no sentence.
            return Status.INTERRUPTED, ""
        case OSError() if error.errno is not None:
            return Status.WRONG_REQUEST, _system_sentence(error)
        case MemoryError():
            return Status.WRONG_REQUEST, "this needs more memory than there is; ask for less"
    summary = " ".join(str(error).split("\n", 1)[0].split())
    what = f"{type(error).__name__}: {summary}" if summary else type(error).__name__
    return Status.FAULT, f"a fault in pmt ({what}); please report it with what PMT_DEBUG=1 shows"


def _usage_sentence(error: typer.TyperException) -> str:
    sentence = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "pmt"
    return f"{sentence} (see '{path} --help')"


def _system_sentence(error: OSError) -> str:
    reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown error")
    where = f"cannot use {error.filename}: " if error.filename is not None else "cannot go on: "
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}{reason}; free some space and run it again"
    return f"{where}{reason}"


def _say(text: str) -> None:
    # With standard error gone there is nobody left to tell; the status still tells it.
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _ensure_standard_streams() -> None:
    """Give a closed stream (`>&-`) somewhere to write to.

    Without this the next file that is opened gets its number, and prints go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that has no α shows its escape; that is no reason to end.
        sys.stdout.reconfigure(errors="backslashreplace")


def _after_last_output(status: int) -> int:
    """Flush what was printed; where that fails, keep Python from trying again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or Status.INTERRUPTED
    return status


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Let a request to end unwind the program, as an interrupt from the keyboard does."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What the parent chose to ignore (nohup) stays ignored.
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    message = f"stopped by {signal.Signals(number).name}; no file was left half-written"
    raise Interrupted(message)
