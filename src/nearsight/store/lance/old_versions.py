"""Deletes the files of a table's old versions, without rewriting what is there."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from nearsight.store.lance.manifest_file import UnknownLayoutError, VersionFacts, read_manifest_file

# A version's file is named by its number, or by what is left of 2^64 - 1, so that the newest comes first.
_LARGEST = 2**64 - 1
_NAMED_BY_REST = 20
_ENDINGS = {"data": {".lance"}, "_deletions": {".arrow", ".bin"}, "_transactions": {".txn"}}


@dataclass(frozen=True, slots=True)
class _Version:
    number: int
    manifest: Path
    written_s: float


def newest_version(root: Path) -> VersionFacts:
    """Return what the newest version of a table consists of.

    Parameters
    ----------
    root : Path
        Directory of the table.

    Raises
    ------
    UnknownLayoutError
        The manifest is not of a layout that is known for certain.
    """
    return _read(_versions(root)[0])


def delete_old_versions(root: Path, *, n_rows: int, version: int, is_alone: bool, keep_s: float) -> int:
    """Delete old versions of a table; return how many bytes that freed.

    Parameters
    ----------
    root : Path
        Directory of the table.
    n_rows, version : int
        Rows and number of the newest version, as the engine sees it. If the manifest disagrees, nothing is
        deleted.
    is_alone : bool
        Whether nobody reads or writes until this returns. Then only the newest version stays, and every
        file without a version is a leftover of a crash. Otherwise versions younger than `keep_s` stay, and so
        do files that no old version names.
    keep_s : float
        Seconds.

    Raises
    ------
    UnknownLayoutError
        A version is not of a layout that is known for certain. Nothing was deleted.
    """
    if (root / "_refs").exists():
        raise UnknownLayoutError(f"{root}: tags or branches hold old versions")
    versions = _versions(root)
    oldest_kept_s = time.time() - keep_s
    kept = [v for v in versions if v is versions[0] or (not is_alone and v.written_s >= oldest_kept_s)]
    expired = [v for v in versions if v not in kept]
    facts = [_read(v) for v in kept]
    # Others may have written meanwhile, unless nobody else is there.
    is_as_expected = facts[0].version > version and not is_alone
    if not is_as_expected and (facts[0].version, facts[0].n_rows) != (version, n_rows):
        raise UnknownLayoutError(
            f"{root}: the manifest says version {facts[0].version} with {facts[0].n_rows} rows, the engine"
            f" version {version} with {n_rows}"
        )
    in_use = set[str]().union(*(fact.files for fact in facts))
    indices = set[str]().union(*(fact.indices for fact in facts))
    if is_alone:
        names = {f"{f.parent.name}/{f.name}" for f in _files(root)}
        old_indices = {entry.name for entry in _entries(root / "_indices")}
    else:
        old = [read_manifest_file(v.manifest) for v in expired]
        names = set[str]().union(*(fact.files for fact in old))
        old_indices = set[str]().union(*(fact.indices for fact in old))
    # Versions first: after a crash in between, no version is left that lacks a file.
    freed = sum(_delete(v.manifest) for v in expired)
    freed += sum(_delete(root / name) for name in names - in_use)
    return freed + sum(_delete(root / "_indices" / name) for name in old_indices - indices)


def _versions(root: Path) -> list[_Version]:
    """Return the versions, the newest first."""
    versions = []
    for path in (root / "_versions").glob("*.manifest"):
        number = version_number(path.stem, str(path))
        versions.append(_Version(number, path, path.stat().st_mtime))
    if not versions:
        raise UnknownLayoutError(f"{root}: there is no version")
    return sorted(versions, key=lambda version: -version.number)


def version_number(stem: str, path: str) -> int:
    """Return the number of a version by the name of its manifest, without its ending.

    Raises
    ------
    UnknownLayoutError
        It is no number.

    Examples
    --------
    >>> version_number("18446744073709551612", ""), version_number("3", "")
    (3, 3)
    """
    if not stem.isdecimal():
        raise UnknownLayoutError(f"{path}: a version has a name that is not a number")
    return _LARGEST - int(stem) if len(stem) == _NAMED_BY_REST else int(stem)


def _read(version: _Version) -> VersionFacts:
    facts = read_manifest_file(version.manifest)
    missing = [name for name in facts.files if name.startswith("data/") and not _exists(version, name)]
    if facts.version != version.number or missing:
        raise UnknownLayoutError(f"{version.manifest}: version {facts.version} lacks the files {missing}")
    return facts


def _exists(version: _Version, name: str) -> bool:
    return (version.manifest.parent.parent / name).is_file()


def _files(root: Path) -> list[Path]:
    return [
        entry
        for folder, endings in _ENDINGS.items()
        for entry in _entries(root / folder)
        if entry.suffix in endings and entry.is_file()
    ]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _delete(path: Path) -> int:
    """Delete a file or a directory of files; return its size."""
    try:
        if path.is_dir():
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        else:
            size = path.stat().st_size
            path.unlink()
    except FileNotFoundError:
        return 0
    return size
