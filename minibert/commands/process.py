"""The process around a command: streams, signals, warnings, threads, exit statuses."""

import ctypes
import gc
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType

from minibert.commands.interrupts import SignalHandler
from minibert.errors import InputError, Interrupted, Silent, printable


def run_script(name: str) -> int:
    """Run the command `name` on sys.argv: parse its options, import its story, run it."""
    prepare_process()
    if name == "train":
        prepare_training()
    if not is_first_process():  # which prints and writes for all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115

    def main(argv: Sequence[str]) -> None:
        # Parsing comes first: --help and mistakes need not wait for torch's import.
        parse = getattr(importlib.import_module("minibert.commands.arguments"), f"parse_{name}")
        try:
            arguments = parse(argv)
        except InputError as error:  # which is the same in all processes
            raise (error if is_first_process() else Silent(2)) from None
        story = import_without_gc(f"minibert.commands.{name}")
        if not has_other_processes():
            story.main(arguments)
            return
        with importlib.import_module("minibert.processes").process_group() as processes:
            story.main(arguments, processes)

    return run_command(main)


def import_without_gc(name: str) -> ModuleType:
    """Import a module while garbage collection is off.

    Later collections leave out all objects that exist then (gc.freeze). Those that PyTorch's import
    makes live as long as the process. To scan them again and again takes a quarter of the time of a
    short command, a part of it at the exit; docs/speed.md has the figures.
    """
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def prepare_process() -> None:
    """Set what must be set before torch is imported."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        # Between two operations the threads of GNU OpenMP spin for milliseconds. On a busy machine
        # they take the cores from threads with work. A short spin helps there and costs little on
        # an idle machine, unlike OMP_WAIT_POLICY=PASSIVE; docs/speed.md has the measurements.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports ends quietly
    # If standard input, output or error is closed, the next opened file would take its number and
    # receive our output: occupy the three numbers.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:  # print() would take standard output in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def prepare_training() -> None:
    """Set how this process uses memory to train, before its first product of matrices."""
    keep_freed_memory()
    keep_few_primitives()


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, unless MALLOC_ or GLIBC_ variables are set.

    PyTorch takes the memory of each tensor from the C library, and frees it. glibc gives large
    blocks back to the system, which has to clear their pages before it hands them out again;
    docs/speed.md has the cost in training. Other C libraries stay as they are.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_")) for name in os.environ):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    set_option(trim_threshold, -1)  # never
    set_option(mmap_max, 0)


def keep_few_primitives() -> None:
    """Let oneDNN keep 64 primitives in place of 1,024, unless the environment has a number.

    A primitive is the code of one product for one shape, and each length of batches has shapes of
    its own. Kept primitives lie between the tensors, so that the memory of freed ones fits less
    often; docs/speed.md has the cost. A training step uses up to 30.
    """
    if not {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"} & os.environ.keys():
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "64"


def has_other_processes() -> bool:
    """Return whether torchrun started this process beside others."""
    return "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def is_first_process() -> bool:
    """Return whether this is the only process, or the first of those that torchrun started."""
    return not has_other_processes() or os.environ.get("RANK", "0") == "0"


def run_command(main: Callable[[Sequence[str]], None]) -> int:
    """Run a command's `main` on sys.argv and return its exit status.

    0 for success, 2 with one line on standard error for an InputError, 128 + N after signal N.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that are not UTF-8
    with SignalHandler(once=has_other_processes()), warnings.catch_warnings():
        if is_first_process():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
        else:
            warnings.simplefilter("ignore")
        try:
            main(sys.argv[1:])
            if sys.stdout is not None:  # None: closed by the parent process
                sys.stdout.flush()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Silent as silent:
            return silent.status
        except BrokenPipeError:
            # The reader has left (`| head`); Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13  # SIGPIPE, which Windows has no name for
        except OSError as error:  # a full disk behind standard output, a name too long
            print(f"error: {printable(str(error), limit=1000)}", file=sys.stderr)
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 2
        except Interrupted as interrupted:
            print(printable(str(interrupted), limit=1000), file=sys.stderr)
            return 128 + interrupted.number
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Print a warning as one line, without the place in the source."""
    print(f"warning: {printable(str(message), limit=1000)}", file=sys.stderr)
