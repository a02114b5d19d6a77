"""A folder of labeled images: which class each shows, and which are the queries."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nearsight.analyses.labeled_images import SPLIT_FOLDERS
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.images import Exclusions, find
from nearsight.images.path_encoding import absolute
from nearsight.text_format import count, nfc

#: What folders of images without defects are called.
GOOD_NAMES = ("good", "normal", "nominal", "ok")


@dataclass(frozen=True)
class LabeledFolder:
    """Images by class.

    Attributes
    ----------
    paths, labels : list of str, length n
    splits : list of str, length n
        ``train``, ``validation`` or ``test``; empty where the folders name no split.
    failed : list of ImageFailure
    holds_pairs : bool
        Whether a label only says which few images show the same thing, so that things are left out whole.
    """

    paths: list[str]
    labels: list[str]
    splits: list[str]
    failed: list[ImageFailure] = field(default_factory=list)
    holds_pairs: bool = False

    @property
    def has_split(self) -> bool:
        """Whether images of ``test`` are searched among the others."""
        return "test" in self.splits and len(set(self.splits)) > 1

    @property
    def good_label(self) -> str | None:
        """The class of images without defects, if this is a set of defects."""
        return next((label for label in sorted(set(self.labels)) if label.lower() in GOOD_NAMES), None)

    def without(self, paths: set[str]) -> "LabeledFolder":
        """Return the folder without some images."""
        rows = [row for row, path in enumerate(self.paths) if path not in paths]
        return LabeledFolder(
            [self.paths[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.splits[row] for row in rows],
            self.failed,
            self.holds_pairs,
        )


def read_labeled_folder(directory: Path, exclusions: Exclusions | None = None) -> LabeledFolder:
    """Read a folder with one folder of images a class, with or without folders of splits above or below them.

    Parameters
    ----------
    directory : Path
        ``CLASS/*``, ``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/train/*`` and ``CLASS/test/*``.
    exclusions : Exclusions, optional

    Raises
    ------
    InvalidParameterError
        There are fewer than two classes, or none has two images.
    """
    paths, labels, splits = [], [], []
    failed: list[ImageFailure] = []
    for source in find([directory], exclusions=exclusions):
        if isinstance(source, ImageFailure):
            failed.append(source)
            continue
        split, names = split_and_names(Path(source.path), directory)
        if names:
            paths.append(source.path)
            labels.append(nfc(names[0]))
            splits.append(split)
    counts = Counter(labels)
    if len(counts) < 2 or max(counts.values()) < 2:
        unread = f" ({count(len(failed), 'path')} cannot be read, such as {failed[0].path})" if failed else ""
        raise InvalidParameterError(
            f"{directory} holds {count(len(counts), 'folder')} of labeled images{unread}; two classes or more"
            " of several images each are needed, one folder each, perhaps in folders named train and test"
        )
    return LabeledFolder(paths, labels, splits, failed)


def split_and_names(path: Path, directory: Path) -> tuple[str, list[str]]:
    """Return the split that a folder above an image names (empty for none), and the other folders' names.

    Parameters
    ----------
    path, directory : Path
        An image, and the folder that it was found in.
    """
    split, names = "", []
    folders = path.relative_to(absolute(str(directory))).parts[:-1]
    for part in folders:
        if not split and part.lower() in SPLIT_FOLDERS:
            split = SPLIT_FOLDERS[part.lower()]
        else:
            names.append(part)
    return split, names
