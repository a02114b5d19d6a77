"""What a walk passes over: hidden names, thumbnails and trash of other programs, and what users exclude."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH100, PTH109, PTH110, PTH118, PTH119

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nearsight.errors import InvalidParameterError
from nearsight.text_format import nfc

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE: Final = ".nearsightignore"
NO_MEDIA: Final = ".nomedia"

# Why an entry is passed over, and its kind among the counts. Other kinds are endings, such as ".cr2".
HIDDEN: Final = "hidden"
EXCLUDED: Final = "excluded"
_NO_ENDING: Final = "no ending"
_OTHER: Final = "other"

# Names in lower case: Windows, macOS, Android, and the network storage of Synology and QNAP.
_FOLDERS: Final = frozenset(
    {"$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx", ".thumbnails"}
    | {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", ".@upload_cache"}
)
# Found in the lower-case name of a folder at its start; the second are files.
_TRASH: Final = ".trash"
_FILE_STARTS: Final = ("._", "SYNOPHOTO_THUMB_", "SYNOFILE_THUMB_")
# Our own: a collection with its settings, and the tables of one, are passed over without a word.
_OWN_FOLDER, _OWN_ENDING = ".nearsight", ".lance"

# Kinds are told apart up to this number, and endings up to this length: names can end in anything.
_MAX_KINDS = 100
_MAX_ENDING = 10


@dataclass(frozen=True)
class Exclusions:
    """What a walk passes over.

    Parameters
    ----------
    patterns : sequence of str
        In the syntax of gitignore, relative to the folder that is walked: ``private/``, ``*_small.jpg``,
        ``/2019/raw/``, ``!keep.jpg``. The path of something below that folder will do. The last match counts;
        these patterns come after those in ``.nearsightignore`` files.
    include_hidden : bool, default False
        Whether names that begin with a dot are walked.

    Raises
    ------
    InvalidParameterError
        A pattern is not valid.

    Notes
    -----
    Always passed over, unless a pattern with ``!`` names them: trash and system folders (``$RECYCLE.BIN``,
    ``#recycle``, ``@Recycle``, ``.Trash*``, ``lost+found``, ``System Volume Information``, ``__MACOSX``),
    thumbnails of other programs (``@eaDir``, ``.@__thumb``, ``.thumbnails``, ``SYNOPHOTO_THUMB_*``),
    AppleDouble files (``._*``), and folders that hold a file ``.nomedia``. As in a shell, a pattern that
    begins with a wildcard does not stand for such a name.
    """

    patterns: tuple[str, ...] = ()
    include_hidden: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", tuple(self.patterns))
        parse_patterns(self.patterns, "the excluded pattern")

    def rules(self, root: str, *, reads_files: bool = True) -> "FolderRules":
        """Return the rules in the folder `root`, where a walk begins.

        Parameters
        ----------
        root : str
            Absolute.
        reads_files : bool
            Whether ``.nearsightignore`` and ``.nomedia`` in the folders are looked at.

        Raises
        ------
        OSError, InvalidParameterError
            The folder's ``.nearsightignore`` cannot be read, or has an invalid pattern.
        """
        patterns = [_below(root, pattern) for pattern in self.patterns]
        spec = parse_patterns(patterns, "the excluded pattern") if patterns else None
        rules = FolderRules(root, "", self.include_hidden, spec, (), reads_files=reads_files)
        return rules.with_ignore_file()

    def names(self, path: str) -> bool:
        """Whether the patterns alone exclude a file that was named by itself."""
        here = os.getcwd()
        spec = parse_patterns([_below(here, pattern) for pattern in self.patterns], "the excluded pattern")
        relative = os.path.relpath(path, here)
        is_below = not relative.startswith(os.pardir)
        return spec is not None and bool(_verdict(spec, relative if is_below else os.path.basename(path))[0])


class FolderRules:
    """The rules of a walk in one folder; see `Exclusions.rules`."""

    __slots__ = ("_folder", "_include_hidden", "_nested", "_reads_files", "_relative", "_spec")

    def __init__(
        self,
        folder: str,
        relative: str,
        include_hidden: bool,
        spec: "GitIgnoreSpec | None",
        nested: tuple[tuple[int, "GitIgnoreSpec"], ...],
        *,
        reads_files: bool,
    ) -> None:
        self._folder = folder
        # From the root, with a separator at its end; and for each ignore file how much of it is above.
        self._relative = relative
        self._include_hidden = include_hidden
        self._spec = spec
        self._nested = nested
        self._reads_files = reads_files

    def with_ignore_file(self) -> "FolderRules":
        """Return these rules and those of the folder's own ``.nearsightignore``."""
        spec = _read_ignore_file(os.path.join(self._folder, IGNORE_FILE)) if self._reads_files else None
        if spec is None:
            return self
        nested = ((len(self._relative), spec), *self._nested)
        return FolderRules(
            self._folder, self._relative, self._include_hidden, self._spec, nested, reads_files=True
        )

    def below(self, name: str) -> "FolderRules | None":
        """Return the rules in a folder of this one; None if it holds ``.nomedia``."""
        folder = os.path.join(self._folder, name)
        if self._reads_files and os.path.exists(os.path.join(folder, NO_MEDIA)):
            return None
        rules = FolderRules(
            folder,
            f"{self._relative}{name}/",
            self._include_hidden,
            self._spec,
            self._nested,
            reads_files=self._reads_files,
        )
        return rules.with_ignore_file()

    def reason(self, name: str, *, is_folder: bool) -> str | None:
        """Return why an entry of the folder is passed over: `HIDDEN`, `EXCLUDED`, or None if it is not.

        An empty text is for what is passed over without a word.
        """
        if self._spec is not None or self._nested:
            is_excluded, is_literal = self._decision(name, is_folder)
            if is_excluded:
                return EXCLUDED
            if is_excluded is False and is_literal:
                return None
        if is_folder:
            lower = name.lower()
            if lower in _FOLDERS or lower.startswith(_TRASH):
                return EXCLUDED
            if lower == _OWN_FOLDER or lower.endswith(_OWN_ENDING):
                return ""
        elif name.startswith(_FILE_STARTS):
            return EXCLUDED
        if name.startswith(".") and not self._include_hidden:
            return "" if name == IGNORE_FILE else HIDDEN
        return None

    def _decision(self, name: str, is_folder: bool) -> tuple[bool | None, bool]:
        path = f"{self._relative}{name}/" if is_folder else self._relative + name
        if self._spec is not None:
            verdict = _verdict(self._spec, path)
            if verdict[0] is not None:
                return verdict
        for n_above, spec in self._nested:
            verdict = _verdict(spec, path[n_above:])
            if verdict[0] is not None:
                return verdict
        return None, False


class PathRules:
    """The rules of a walk for paths in any order, as they are in a listing or a collection.

    Parameters
    ----------
    exclusions : Exclusions
    root : str
        Where the walk would begin.
    reads_files : bool
        See `Exclusions.rules`.
    """

    def __init__(self, exclusions: Exclusions, root: str, *, reads_files: bool = True) -> None:
        # By relative folder; a text is why the folder is passed over.
        self._rules: dict[str, FolderRules | str] = {"": exclusions.rules(root, reads_files=reads_files)}

    def reason(self, relative: str, *, is_folder: bool = False) -> str | None:
        """Return why a walk passes over a path below the root, or None; see `FolderRules.reason`."""
        folder, _, name = relative.rpartition("/")
        rules = self._folder(folder)
        return rules if isinstance(rules, str) else rules.reason(name, is_folder=is_folder)

    def _folder(self, folder: str) -> FolderRules | str:
        if folder not in self._rules:
            parent, _, name = folder.rpartition("/")
            above = self._folder(parent)
            if isinstance(above, str):
                self._rules[folder] = above
            else:
                reason = above.reason(name, is_folder=True)
                below = above.below(name) if reason is None else reason
                self._rules[folder] = EXCLUDED if below is None else below
        return self._rules[folder]


def count_skipped(skipped: "Counter[str] | None", kind: str | None) -> None:
    """Count an entry that was passed over by its kind; a kind without a text is not counted."""
    if skipped is not None and kind:
        skipped[kind if kind in skipped or len(skipped) < _MAX_KINDS else _OTHER] += 1


def ending(name: str) -> str:
    """Return the kind of a file that is not an image.

    Examples
    --------
    >>> ending("IMG_1.CR2"), ending("README"), ending("a.b c")
    ('.cr2', 'no ending', 'no ending')
    """
    _, dot, extension = name.rpartition(".")
    if dot and extension.isascii() and extension.isalnum() and len(extension) <= _MAX_ENDING:
        return "." + extension.lower()
    return _NO_ENDING


def parse_patterns(patterns: Iterable[str], source: str) -> "GitIgnoreSpec | None":
    """Return patterns of gitignore as one object that can be asked; None if there are none.

    Raises
    ------
    InvalidParameterError
        One of them is not valid; the message names it and `source`.
    """
    parsed = [_parsed(nfc(pattern), source) for pattern in patterns]
    if not parsed:
        return None
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec(pattern for patterns in parsed for pattern in patterns)


def _parsed(line: str, source: str) -> list[Any]:
    # Imported here: most walks have no patterns.
    from pathspec import GitIgnoreSpec

    try:
        return list(GitIgnoreSpec.from_lines([line]).patterns)
    except Exception as error:  # the library lets errors of `re` through
        raise InvalidParameterError(
            f"{source} {line!r} is not valid in gitignore's syntax: {error}"
        ) from error


def _verdict(spec: "GitIgnoreSpec", path: str) -> tuple[bool | None, bool]:
    """Return whether a path is excluded (None: no pattern matches), and whether the pattern names it."""
    result = spec.check_file(nfc(path))
    if result.include is None or result.index is None:
        return None, False
    pattern = str(spec.patterns[result.index].pattern)
    return result.include, not pattern.rstrip("/").rpartition("/")[2].lstrip("!").startswith(("*", "?", "["))


def _read_ignore_file(path: str) -> "GitIgnoreSpec | None":
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return parse_patterns(file.read().splitlines(), f"{path}:")
    except (FileNotFoundError, IsADirectoryError):
        return None


def _below(root: str, pattern: str) -> str:
    """Return a pattern relative to the root if it is the path of something below that."""
    negation, path = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if not path.startswith("/") and "/" in path.rstrip("/") and os.path.lexists(path):
        path = os.path.abspath(path) + "/" * path.endswith("/")
    prefix = root.rstrip("/") + "/"
    return f"{negation}/{path[len(prefix) :]}" if prefix != "/" and path.startswith(prefix) else pattern
