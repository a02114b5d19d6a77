"""Models on a Hugging Face hub: ``hub:ORG/REPO[@REVISION][#PRECISION]``, fetched once, then found offline.

`huggingface_hub` keeps the files and knows the rules: ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and
tokens are its business.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nearsight.errors import MissingExtraError, NearsightError, UnknownModelError, WeightsError
from nearsight.models.base import ModelEntry, TextTower
from nearsight.models.huggingface.folder import SIDE_FILES, ModelFolder, choose, split_precision, text_file
from nearsight.models.onnx_graph import inspect
from nearsight.models.spec import ModelSpec

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub(name: str) -> ModelEntry:
    """Return a model on the hub, as the registry asks for it; fetch what is not here yet.

    The id names the commit, whatever branch was asked for: a collection goes on with the very model it
    was made with, though the branch moves.

    Parameters
    ----------
    name : str
        ``ORG/REPO``, with ``@`` and a branch, tag or commit, and with ``#`` and a precision.

    Raises
    ------
    MissingExtraError
        huggingface_hub is not installed.
    UnknownModelError
        The name is none, or the repository has no such model.
    WeightsError
        The model is not here and cannot be fetched, or cannot be used.
    """
    place, precision = split_precision(name)
    match = _NAME.fullmatch(place)
    if match is None:
        raise UnknownModelError(
            f"{name!r} is no model on a hub; the name is hub:ORG/REPO, hub:ORG/REPO@REVISION or "
            "hub:ORG/REPO#PRECISION"
        )
    folder = _fetch(match["repo"], match["revision"], precision)
    # The cache names a snapshot's folder after its commit.
    ending = f"#{precision}" if precision else ""
    entry = ModelFolder(folder, precision).entry(f"hub:{match['repo']}@{folder.name}{ending}")
    if entry.load_text_encoder is None:
        # The tower for texts is fetched when somebody has a text.
        return replace(entry, load_text_encoder=partial(_load_text, match["repo"], folder, precision))
    return entry


def fetch_folder(name: str, patterns: Sequence[str]) -> Path:
    """Return the local folder of a repository with the files that match, fetched where they are not here.

    Parameters
    ----------
    name : str
        ``ORG/REPO`` or ``ORG/REPO@REVISION``.
    patterns : sequence of str
        Of file names, as for `fnmatch`.

    Raises
    ------
    MissingExtraError, UnknownModelError, WeightsError
        As for `hub`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnknownModelError(
            f"{name!r} is no repository; the name is hub:ORG/REPO or hub:ORG/REPO@REVISION"
        )
    huggingface_hub = _require(name)
    asked = {"revision": match["revision"], "allow_patterns": list(patterns)}
    try:
        return Path(huggingface_hub.snapshot_download(match["repo"], **asked))
    # The hub can be missing in many ways; whichever it is, what was fetched before will do.
    except Exception as error:
        try:
            return Path(huggingface_hub.snapshot_download(match["repo"], local_files_only=True, **asked))
        except (OSError, ValueError):
            raise WeightsError(
                f"hub:{name} is not on this machine and could not be fetched ({type(error).__name__}: "
                f"{error}). Check the name and the network, or copy its folder here and use dir:PATH."
            ) from error


def fetched_models() -> list[ModelEntry]:
    """Return the models of a hub that are on this machine already, in each precision that is.

    Only what lies in the ONNX layout counts. Every file is hashed, at about a gigabyte a second.
    """
    try:
        import huggingface_hub
    except ImportError:
        return []
    try:
        cache = huggingface_hub.scan_cache_dir()
    except huggingface_hub.errors.CacheNotFound:
        return []
    found = []
    for repo in sorted(cache.repos, key=lambda repo: str(repo.repo_id)):
        for revision in sorted(repo.revisions, key=lambda revision: str(revision.commit_hash)):
            for folder in ModelFolder.all_in(Path(revision.snapshot_path)):
                ending = f"#{folder.precision}" if folder.precision else ""
                # What is of another kind, or was fetched in part, is no model that can be had here.
                with suppress(NearsightError):
                    found.append(folder.entry(f"hub:{repo.repo_id}@{revision.commit_hash}{ending}"))
    return found


def _load_text(repo: str, folder: Path, precision: str, cache_dir: Path, spec: ModelSpec) -> TextTower:
    """Fetch the text tower of the very commit that the image tower is of, and load it."""
    import huggingface_hub

    name = text_file(precision)
    try:
        huggingface_hub.snapshot_download(repo, revision=folder.name, allow_patterns=[name, f"{name}_data*"])
    # As for the image tower: what is here already is used all the same.
    except Exception as error:
        if not (folder / name).is_file():
            raise WeightsError(
                f"the text tower of hub:{repo} is not on this machine and could not be fetched "
                f"({type(error).__name__}: {error}). Go online once, and search with words then."
            ) from error
    load = ModelFolder(folder, precision).text_loader(spec)
    if load is None:
        raise UnknownModelError(f"hub:{repo} knows no texts: it has no {name} with a tokenizer.json")
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
    """Return the local folder of a revision, with every file in it that is needed."""
    huggingface_hub = _require(repo)
    # A commit never changes: where it is here, nobody need be asked.
    if revision is not None and _COMMIT.fullmatch(revision):
        kept = _kept(huggingface_hub, repo, revision, precision)
        if kept is not None:
            return kept
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
        names = {sibling.rfilename for sibling in info.siblings or ()}
        model = choose(names, precision, f"hub:{repo}")
        wanted = [*SIDE_FILES, model, f"{model}_data*"]
        # Asked for by the name that was given: only then is it noted what the name means, for going offline.
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except UnknownModelError:
        raise
    # The hub can be missing in many ways (no network, offline mode, no such repository, no right to it).
    except Exception as error:
        kept = _kept(huggingface_hub, repo, revision, precision)
        if kept is not None:
            return kept
        raise WeightsError(
            f"hub:{repo} is not on this machine in full and could not be fetched "
            f"({type(error).__name__}: {error}). Check the name and the network, log in with `hf auth login` "
            "where it is private, or copy its folder here and use dir:PATH."
        ) from error


def _kept(huggingface_hub: Any, repo: str, revision: str | None, precision: str) -> Path | None:
    """Return the folder of a revision that was fetched before, if the model is in it."""
    try:
        # The file that every model has leads to the folder; that of the whole repository would be refused,
        # since most of it was never wanted.
        config = huggingface_hub.hf_hub_download(
            repo, "config.json", revision=revision, local_files_only=True
        )
        path = Path(config).parent
        model = ModelFolder(path, precision).image_model
        # A download that was cut short may have left the graph without its weights.
        whole = all((model.parent / name).is_file() for name in inspect(model).data_files)
        return path if whole else None
    except (OSError, ValueError, WeightsError, UnknownModelError):
        return None
