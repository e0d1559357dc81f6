"""Scripts as processes that start at once: forks of one process that has imported torch.

An import of torch takes seconds, and the tests start hundreds of processes. A fork is a process
like any other: it has its own memory, streams, signals, folder and environment. It differs in what
is imported already, in what the interpreter and the libraries have read from the environment
(READ_ONCE), in its hash seed, which all forks share, and in its end: it does not free its objects
one by one, which takes a second.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# huggingface_hub is not among them: it reads its variables of the environment at its import.
IMPORTED = (
    *(f"minibert.commands.{name}" for name in ("train", "evaluate", "predict")),
    # minibert and PyTorch import them at their first use
    *("sklearn.metrics", "torch._dynamo", "jinja2"),
)
READ_ONCE = ("ATEN_", "CUDA_", "GOMP_", "LANG", "LC_", "LD_", "MKL_", "OMP_", "ONEDNN_", "PYTHON")


def read_once(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a fork cannot change."""
    return {name: value for name, value in environment.items() if name.startswith(READ_ONCE)}


class ForkServer:
    """The process that forks. It ends when its socket is closed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = read_once(environment)
        # SEQPACKET keeps message boundaries. The last descriptor of a request takes the answers.
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            descriptors = [theirs.fileno()]
            self.process = subprocess.Popen(command, env=environment, pass_fds=descriptors)


class ForkedScript(subprocess.Popen):
    """A script, or code after -c, started by a fork server; it has the methods of Popen.

    The overridden methods are private; they were tried with Python 3.10, 3.11 and 3.13.
    """

    def __init__(self, server: ForkServer, argv: list[str], **options: Any) -> None:
        self._server = server
        super().__init__(argv, **options)

    def _execute_child(self, args: Any, *others: Any) -> None:  # type: ignore[override]
        _, _, _, _, cwd, env, _, _, _, *pipes = others[:15]
        streams = [pipe if pipe != -1 else i for i, pipe in enumerate((pipes[0], *pipes[3::2]))]
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            request = json.dumps({"argv": args, "cwd": str(cwd), "env": dict(env)}).encode()
            descriptors = [*streams, theirs.fileno()]
            socket.send_fds(self._server.requests, [request], descriptors)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        pid = self._status.recv(16)
        if not pid:
            raise RuntimeError("the fork server has ended; its standard error says why")
        self.pid = int(pid)
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        self._status.setblocking(not wait_flags & os.WNOHANG)
        try:
            answer = self._status.recv(16)
        except BlockingIOError:
            return 0, 0
        self._status.close()
        if not answer:  # the watcher was killed: nothing watches the fork any more
            os.kill(self.pid, signal.SIGKILL)
        return self.pid, int(answer or signal.SIGKILL)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:  # no other thread has waited
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def next_request(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request. Returns in the fork, with the fork's own streams."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for pytest
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 2**20, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            break
        for descriptor in descriptors:
            os.close(descriptor)
    *streams, answer = descriptors
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as it is before Python has started
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for descriptor in descriptors:
            os.close(descriptor)
        return json.loads(message)
    for stream in streams:
        os.close(stream)
    watch(child, answer)


def watch(child: int, answer: int) -> NoReturn:
    """Report a fork's number and, when it ends, its status."""
    try:
        os.write(answer, str(child).encode())
        os.write(answer, str(os.waitpid(child, 0)[1]).encode())
    finally:
        os._exit(0)


def run(request: dict[str, Any]) -> int:
    """Make this fork what the request says, and run the script; returns its exit status."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    np.random.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = {"encoding": sys.stdout.encoding, "errors": sys.stdout.errors, "closefd": False}
    sys.stdin = open(0, **{**output, "errors": sys.stdin.errors})  # noqa: SIM115
    sys.stdout = open(1, "w", **output)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, **{**output, "errors": "backslashreplace"})  # noqa: SIM115
    sys.argv = request["argv"]
    if not {"--plot", "--report"} & set(sys.argv):
        sys.modules["matplotlib"] = None  # type: ignore[assignment]  # see conftest.py
    try:
        if sys.argv[0] == "-c":
            code, sys.path[0] = sys.argv.pop(1), ""
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(sys.modules["__main__"]))
        else:
            sys.path[0] = str(Path(sys.argv[0]).parent)
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def end(status: int) -> NoReturn:
    """End as Python ends, without freeing every object."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120
    os._exit(status)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a fork that collected garbage would copy the pages of all that is imported
    end(run(next_request(socket.socket(fileno=int(sys.argv[1])))))
