"""The story of a publication: from a finished run to a model on the hub, with its card."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from minibert.commands.push_arguments import PushArguments
from minibert.errors import InputError
from minibert.files import OPTIONAL_FILES, model_file, new_folder, write_text
from minibert.inference.text_classifier import TextClassifier
from minibert.processes import ONE_PROCESS, Processes, check_single
from minibert.report.card import model_card


def main(arguments: PushArguments, processes: Processes = ONE_PROCESS) -> None:
    """Publish a run, or write what would be published."""
    check_single(processes, "push")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    from huggingface_hub import get_token

    card = model_card(arguments.run, arguments.repository)  # also checks the run
    card = own_card(arguments.run) or card
    if arguments.dry_run:
        with new_folder(arguments.dry_run) as folder:
            write_files(folder, arguments.run, card)
        print(f"sent nothing; {arguments.dry_run} has what push sends")
        return
    if get_token() is None:
        raise InputError(
            f"{arguments.repository}: push needs a token that may write there; hf auth login, or "
            "set HF_TOKEN"
        )
    with TemporaryDirectory() as name:
        write_files(Path(name), arguments.run, card)
        print(publish(Path(name), arguments))


def own_card(run: Path) -> str | None:
    """Return the README.md that a user has put into the run's folder; None without one.

    Raises InputError for one that the hub would refuse.
    """
    from huggingface_hub import ModelCard

    file = run / "README.md"
    if not os.path.lexists(file):
        return None
    if not file.is_file():
        raise InputError(f"{file}: is not a file; remove it")
    model_file(run, file.name)  # refuses a link to a file outside the folder
    try:
        text = file.read_text(encoding="utf-8")
        ModelCard(text)
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not UTF-8; save it as UTF-8") from None
    except Exception as error:  # its YAML parser has errors of its own
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: its header is not YAML ({reason})") from None
    return text


def write_files(folder: Path, run: Path, card: str) -> None:
    """Write the files that are published."""
    TextClassifier.from_folder(run).save(folder)
    write_text(folder / "README.md", card)
    metrics = model_file(run, "metrics.json")
    assert metrics is not None  # model_card has read it
    shutil.copyfile(metrics, folder / "metrics.json")


def publish(folder: Path, arguments: PushArguments) -> str:
    """Commit the files of a folder to a repository, which is created; return the commit's URL.

    The commit deletes the optional files that an earlier model has and this one has not.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    repository, revision, api = arguments.repository, arguments.revision, HfApi()
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    additions = [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]
    with hub_errors(repository):
        api.create_repo(repository, private=arguments.private or None, exist_ok=True)
        if arguments.private and not api.model_info(repository).private:
            raise InputError(f"{repository}: is there already and public; drop --private")
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        old = {*OPTIONAL_FILES}.intersection(api.list_repo_files(repository, revision=revision))
        new = {addition.path_in_repo for addition in additions}
        deletions = [CommitOperationDelete(name) for name in sorted(old - new)]
        message = "Add a classifier trained with minibert"
        commit = api.create_commit(
            repository, [*additions, *deletions], commit_message=message, revision=revision
        )
    return commit.commit_url


@contextmanager
def hub_errors(repository: str) -> Iterator[None]:
    """Turn the errors of huggingface-hub into InputErrors that say what to do."""
    from huggingface_hub import errors as hub

    try:
        yield
    except InputError:
        raise
    # It raises RuntimeError for a file whose upload fails, and ValueError for a card or a name that
    # the hub refuses.
    except (hub.HTTPError, OSError, RuntimeError, ValueError) as error:
        status = error.response.status_code if isinstance(error, hub.HfHubHTTPError) else None
        advice = "the hub refuses it" if isinstance(error, ValueError) else "push again"
        if status in (401, 403, 404):
            advice = "check the owner's name, and that the token may write there"
        reason = " ".join(str(error).split())
        raise InputError(f"{repository}: is not published; {advice} ({reason})") from None
