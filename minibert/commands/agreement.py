"""What several processes must agree on before they train one run."""

import json
from typing import Any

from minibert.commands.options import Settings
from minibert.errors import InputError
from minibert.processes import Processes
from minibert.runs import Metadata, RunFolder
from minibert.training.options import TrainingOptions
from minibert.training.state import state_files


def check_same_start(processes: Processes, settings: Settings, metadata: Metadata) -> None:
    """Raise InputError if this process has other options, data or model than the first one."""
    own = json.loads(json.dumps(settings.to_dict()))
    found: dict[str, Any] = {**own, **metadata.digests, **metadata.environment}
    found.pop("model_folder")  # which may have another place on another machine
    first = processes.call_first(lambda: found)
    changed = sorted(x for x in found.keys() | first.keys() if found.get(x) != first.get(x))
    if changed:
        raise InputError(
            f"process {processes.rank} of 0 to {processes.size - 1} has another "
            f"{', '.join(changed)} than process 0; give all the same options, files and versions"
        )


def check_shared(processes: Processes, run: RunFolder) -> None:
    """Raise InputError if this process does not see the folder of the first one."""

    def look() -> tuple[str, list[str]]:
        if not run.settings_file.is_file():
            return "", []
        return run.settings_file.read_text("utf-8"), [file.name for file in state_files(run.path)]

    if processes.call_first(look) != look():
        raise InputError(
            f"{run.path}: is another folder for process {processes.rank} than for process 0; "
            "processes on several machines need a run folder that all of them share"
        )


def idle_processes(processes: Processes, options: TrainingOptions) -> tuple[str, ...]:
    """Return a line for more processes than a step has batches."""
    if processes.size <= options.accumulate:
        return ()
    return (
        f"a step has {options.accumulate} batches for {processes.size} processes, so some are idle "
        f"in training; --accumulate {processes.size} with a smaller --batch-size uses all",
    )
