"""What is set before torch is imported, and how a command ends.

Run: pytest tests/test_process.py
"""

import os
import platform
from pathlib import Path

import pytest
import torch
from helpers import ROOT, start_script

COUNT_COLLECTIONS = f"""
import gc, sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands.process import import_without_gc
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
try:
    import_without_gc(sys.argv[1])
except ImportError:
    print("no such module")
print(len(collections), gc.isenabled(), gc.get_freeze_count() > 1000)
"""


@pytest.mark.parametrize("module", ["asyncio", "module_that_does_not_exist"])
def test_an_import_runs_without_garbage_collections(tmp_path: Path, module: str):
    process = start_script(["-c", COUNT_COLLECTIONS, module], cwd=tmp_path, fresh=True)
    output, errors = process.communicate(timeout=60)
    assert output.splitlines()[-1] == "0 True True", errors


PRINT_ENVIRONMENT = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands.process import prepare_process
prepare_process()
print([os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")])
print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [None, "10000"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None]),
        ({"GOMP_SPINCOUNT": "7"}, [None, "7"]),
        ({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}, ["PASSIVE", "0"]),
    ],
)
def test_openmp_threads_spin_shortly_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch, environment, expected
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    process = start_script(["-c", PRINT_ENVIRONMENT], cwd=tmp_path, env=environment, fresh=True)
    output, errors = process.communicate(timeout=60)
    assert output.splitlines() == [str(expected), "False"], errors


COUNT_FAULTS = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands.process import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(100_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults() > 40, faults() > 40)  # of huge pages there are 48
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's setting")
@pytest.mark.parametrize(
    ("argument", "environment", "touched_again"),
    [
        ("keep", {}, False),
        ("keep", {"MALLOC_ARENA_MAX": "2"}, True),
        ("keep", {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, True),
        ("-", {}, True),
    ],
)
def test_freed_memory_is_kept_unless_the_user_sets_up_the_c_library(
    tmp_path: Path, monkeypatch, argument, environment, touched_again
):
    """The second block of 100 MB lies in the pages of the first, which is freed by then."""
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    process = start_script(
        ["-c", COUNT_FAULTS, argument], cwd=tmp_path, env=environment, fresh=True
    )
    output, errors = process.communicate(timeout=60)
    assert output.split() == ["True", str(touched_again)], errors


COUNT_PRIMITIVES = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands.process import keep_few_primitives
keep_few_primitives()
import torch
for rows in [*range(1, 71), 1]:  # the first shape comes again, after 69 others
    torch.ops.mkldnn._linear_pointwise(torch.ones(rows, 3), torch.ones(4, 3), None, "none", [], "")
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a PyTorch without oneDNN")
@pytest.mark.parametrize(
    ("environment", "last"),
    [
        ({}, "cache_miss"),
        ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1000"}, "cache_hit"),
        ({"DNNL_PRIMITIVE_CACHE_CAPACITY": "1000"}, "cache_hit"),
    ],
)
def test_onednn_keeps_few_primitives_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch, environment, last
):
    for name in [name for name in os.environ if name.startswith(("ONEDNN_PRIM", "DNNL_PRIM"))]:
        monkeypatch.delenv(name)
    environment = {**environment, "ONEDNN_VERBOSE": "profile_create"}
    process = start_script(["-c", COUNT_PRIMITIVES], cwd=tmp_path, env=environment, fresh=True)
    output, errors = process.communicate(timeout=60)
    created = [line for line in output.splitlines() if "create:" in line]
    assert f"create:{last}" in created[-1], errors
    assert sum("cache_miss" in line for line in created) >= 70


@pytest.mark.parametrize(("name", "sets"), [("train", True), ("predict", False)])
def test_only_training_sets_how_memory_is_used(tmp_path: Path, name: str, sets: bool):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands import process
process.prepare_training = lambda: print("set")
sys.argv[1:] = ["--help"]
process.run_script({name!r})
"""
    output, errors = start_script(["-c", script], cwd=tmp_path).communicate(timeout=60)
    assert output.startswith("set\n") == sets and "usage:" in output, errors


def run(place: Path, statement: str) -> tuple[int, str, str]:
    """Run a command that consists of one statement."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from minibert.commands.process import run_command
from minibert.errors import InputError, Interrupted
def main(argv):
    {statement}
sys.exit(run_command(main))
"""
    process = start_script(["-c", script], cwd=place)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    ("statement", "status", "line"),
    [
        ("raise InputError('a file\\nin two lines')", 2, "error: a file\\nin two lines\n"),
        ("raise OSError(28, 'No space left')", 2, "error: [Errno 28] No space left\n"),
        ("raise Interrupted(15)", 143, "stopped by SIGTERM\n"),
        ("raise Interrupted(2, 'resume it')", 130, "stopped by SIGINT; resume it\n"),
        ("import warnings; warnings.warn('a\\nb')", 0, "warning: a\\nb\n"),
        ("print('done')", 0, ""),
    ],
)
def test_a_command_ends_with_one_line_and_an_exit_status(tmp_path, statement, status, line):
    found, output, errors = run(tmp_path, statement)
    assert (found, errors) == (status, line)
    assert output == ("done\n" if "print" in statement else "")


def test_a_bug_keeps_its_traceback(tmp_path):
    status, _, errors = run(tmp_path, "1 / 0")
    assert status == 1 and "Traceback" in errors and "ZeroDivisionError" in errors


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_prints_help_and_mistakes(rank: str, tmp_path: Path):
    environment = {"WORLD_SIZE": "2", "LOCAL_RANK": rank, "RANK": rank}
    for flag, status in (("--help", 0), ("--no-such-flag", 2)):
        process = start_script("train.py", flag, cwd=tmp_path, env=environment)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == status
        assert bool(output) == (rank == "0" and flag == "--help")
        assert bool(errors) == (rank == "0" and flag != "--help")


def test_one_process_of_a_launcher_works(tmp_path: Path):
    environment = {"WORLD_SIZE": "1", "LOCAL_RANK": "0", "RANK": "0"}
    process = start_script("predict.py", "--help", cwd=tmp_path, env=environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "predict.py" in output
