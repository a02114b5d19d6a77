"""Models on a Hugging Face hub: ``hub:ORG/REPO[@REVISION][#PRECISION]``, downloaded once, then used offline.

`huggingface_hub` stores the files and handles ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and tokens.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nearsight.errors import MissingExtraError, NearsightError, UnknownModelError, WeightsError
from nearsight.models.base import ModelEntry, TextEncoder
from nearsight.models.huggingface.folder import (
    SIDE_FILES,
    ModelFolder,
    select_image_model,
    split_precision,
    text_file,
)
from nearsight.models.huggingface.known_models import keeps_first_commit
from nearsight.models.onnx_graph import read_graph_facts
from nearsight.models.spec import ModelSpec

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub(name: str) -> ModelEntry:
    """Return the entry of a model on the hub; download missing files.

    The id contains the commit, also if a branch is given: a collection keeps the model it was created with
    when the branch changes.

    Parameters
    ----------
    name : str
        ``ORG/REPO``, with ``@`` and a branch, tag or commit, and with ``#`` and a precision.

    Raises
    ------
    MissingExtraError
        huggingface_hub is not installed.
    UnknownModelError
        The name is not valid, or the repository has no such model.
    WeightsError
        The model cannot be downloaded or used.
    """
    repository, precision = split_precision(name)
    match = _NAME.fullmatch(repository)
    if match is None:
        raise UnknownModelError(
            f"{name!r} is not the name of a model on a hub; give hub:ORG/REPO, hub:ORG/REPO@REVISION or "
            "hub:ORG/REPO#PRECISION"
        )
    folder = _fetch(match["repo"], match["revision"], precision)
    # The cache names a snapshot's folder after its commit.
    ending = f"#{precision}" if precision else ""
    entry = ModelFolder(folder, precision).entry(f"hub:{match['repo']}@{folder.name}{ending}")
    if entry.load_text_encoder is None:
        # The text encoder is downloaded at its first use.
        return replace(entry, load_text_encoder=partial(_load_text, match["repo"], folder, precision))
    return entry


def fetch_folder(name: str, patterns: Sequence[str]) -> Path:
    """Return the local folder of a repository with the matching files; download missing ones.

    Parameters
    ----------
    name : str
        ``ORG/REPO`` or ``ORG/REPO@REVISION``.
    patterns : sequence of str
        Patterns of file names, as for `fnmatch`.

    Raises
    ------
    MissingExtraError, UnknownModelError, WeightsError
        As for `hub`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownModelError(
            f"{name!r} is not the name of a repository; give hub:ORG/REPO or hub:ORG/REPO@REVISION"
        )
    huggingface_hub = _require(name)
    options = {"revision": match["revision"], "allow_patterns": list(patterns)}
    try:
        return Path(huggingface_hub.snapshot_download(match["repo"], **options))
    # Whatever the error of the hub is, files downloaded before are used.
    except Exception as error:
        try:
            return Path(huggingface_hub.snapshot_download(match["repo"], local_files_only=True, **options))
        except (OSError, ValueError):
            raise WeightsError(
                f"hub:{name} is not on this machine and could not be downloaded ({type(error).__name__}: "
                f"{error}). Check the name and the network, or copy its folder here and use dir:PATH."
            ) from error


def fetched_models() -> list[ModelEntry]:
    """Return the downloaded models, in each downloaded precision.

    Only models in the ONNX layout are listed. Every file is hashed, at about one gigabyte per second.
    """
    try:
        import huggingface_hub
    except ImportError:
        return []
    try:
        cache = huggingface_hub.scan_cache_dir()
    except huggingface_hub.errors.CacheNotFound:
        return []
    entries = []
    for repo in sorted(cache.repos, key=lambda repo: str(repo.repo_id)):
        for revision in sorted(repo.revisions, key=lambda revision: str(revision.commit_hash)):
            for folder in ModelFolder.all_in(Path(revision.snapshot_path)):
                ending = f"#{folder.precision}" if folder.precision else ""
                # Skip other kinds of models and incomplete downloads.
                with suppress(NearsightError):
                    entries.append(folder.entry(f"hub:{repo.repo_id}@{revision.commit_hash}{ending}"))
    return entries


def _load_text(repo: str, folder: Path, precision: str, cache_dir: Path, spec: ModelSpec) -> TextEncoder:
    """Download the text encoder of the same commit as the image encoder, and load it."""
    import huggingface_hub

    name = text_file(precision)
    try:
        huggingface_hub.snapshot_download(repo, revision=folder.name, allow_patterns=[name, f"{name}_data*"])
    # Whatever the error of the hub is, a file downloaded before is used.
    except Exception as error:
        if not (folder / name).is_file():
            raise WeightsError(
                f"the text encoder of hub:{repo} is not on this machine and could not be downloaded "
                f"({type(error).__name__}: {error}). Go online once to download it."
            ) from error
    load = ModelFolder(folder, precision).text_loader(spec)
    if load is None:
        raise UnknownModelError(f"hub:{repo} has no text encoder: it lacks {name} or tokenizer.json")
    return load(cache_dir, spec)


def _require(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError(
            f"hub:{name} needs huggingface_hub. Run: pip install 'nearsight[hub]'"
        ) from error
    return huggingface_hub


def _fetch(repo: str, revision: str | None, precision: str) -> Path:
    """Return the local folder of a revision with all needed files."""
    huggingface_hub = _require(repo)
    # A commit never changes, so a downloaded one needs no request. A short name without a commit keeps
    # meaning the same vectors when the repository changes.
    if _COMMIT.fullmatch(revision or "") or (revision is None and keeps_first_commit(repo)):
        local_folder = _local_folder(huggingface_hub, repo, revision, precision)
        if local_folder is not None:
            return local_folder
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
        names = {sibling.rfilename for sibling in info.siblings or ()}
        model = select_image_model(names, precision, f"hub:{repo}")
        patterns = [*SIDE_FILES, model, f"{model}_data*"]
        # Request the revision by its given name, so that the name can be resolved offline later.
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except UnknownModelError:
        raise
    # Possible errors: no network, offline mode, no such repository, no permission.
    except Exception as error:
        local_folder = _local_folder(huggingface_hub, repo, revision, precision)
        if local_folder is not None:
            return local_folder
        raise WeightsError(
            f"hub:{repo} is not completely on this machine and could not be downloaded "
            f"({type(error).__name__}: {error}). Check the name and the network, log in with `hf auth login` "
            "where it is private, or copy its folder here and use dir:PATH."
        ) from error


def _local_folder(huggingface_hub: Any, repo: str, revision: str | None, precision: str) -> Path | None:
    """Return the folder of a downloaded revision, if it contains the model."""
    try:
        # config.json leads to the folder; a request for the whole repository would fail, since only some
        # of its files were downloaded.
        config = huggingface_hub.hf_hub_download(
            repo, "config.json", revision=revision, local_files_only=True
        )
        path = Path(config).parent
        model = ModelFolder(path, precision).image_model
        # An interrupted download may lack the weights of the graph.
        whole = all((model.parent / name).is_file() for name in read_graph_facts(model).data_files)
        return path if whole else None
    except (OSError, ValueError, WeightsError, UnknownModelError):
        return None
