"""The result of a search for near-duplicates: groups, each with the image to keep, and leaks."""

from dataclasses import dataclass, field

from nearsight.analyses.kept_file import n_distinct_files
from nearsight.collection import Item
from nearsight.collection.notebook import ShownImage, Thumbnails, rows_html
from nearsight.estimators.conformal import Threshold
from nearsight.text_format import ShortRepr
from nearsight.verification import dense

#: Steps of `find_duplicates`: vectors, thumbnails and their hashes are read; vectors, hashes and pixels are
#: compared, and pixels on plain grounds, which are measured first; and the duplicates: edges, losses, pairs.
#: Images of `distinct_where` are compared by vectors and by hashes once more.
N_STEPS = 11
# A higher expected rate is worth a warning; of 1,654 photographs, 0.1 % had a false match.
_DOUBTFUL_RATE = 0.02


@dataclass(frozen=True, slots=True, repr=False)
class DuplicateGroup(ShortRepr):
    """Images that are duplicates of one another.

    Attributes
    ----------
    keep : Item
        The image to keep. Its paths leave out links to files that are among them.
    items : list of Item
        All images, the kept one first. An image that lies in several identical files is a group of its own.
    similarities : list of float
        Cosine of the kept image and each of the others, in -1..1.
    agreements : list of float
        Agreement of the pixels of each of the others with the image it was verified against, in -1..1.
    verified_against : list of str
        The id of that image: the kept one, or, where the two show too little in common, the verified
        duplicate that agrees most.
    why : str
        Why this image is kept.
    doubts : list of str
        Why each of the others needs a look before it is deleted; empty where it certainly shows the same and
        has nothing that the kept image lacks.
    hard_links : list of str
        Further names of the file to keep. Deleting one frees no space.
    """

    keep: Item
    items: list[Item]
    similarities: list[float]
    agreements: list[float]
    verified_against: list[str]
    why: str
    doubts: list[str] = field(default_factory=list)
    hard_links: list[str] = field(default_factory=list)

    @property
    def similarity(self) -> float:
        """The lowest of `similarities`; 1 for identical files."""
        return min(self.similarities, default=1.0)

    @property
    def agreement(self) -> float:
        """The lowest of `agreements`; 1 for identical files."""
        return min(self.agreements, default=1.0)

    @property
    def certain(self) -> bool:
        """Whether nothing in the group needs a look: `review` is empty."""
        return not any(self.doubts)

    @property
    def redundant(self) -> list[str]:
        """The files that can go: identical to the kept one, or of images without a doubt."""
        return [*self.keep.paths[1:], *self._paths(doubtful=False)]

    @property
    def review(self) -> list[str]:
        """The files of images with a doubt: look at them before you delete one."""
        return self._paths(doubtful=True)

    @property
    def redundant_bytes(self) -> int:
        """Space that deleting `redundant` frees; hard links of one file count once."""
        others = zip(self.items[1:], self.doubts, strict=True)
        files = [
            (self.keep, self.keep.paths[1:]),
            *((item, item.paths) for item, doubt in others if not doubt),
        ]
        return sum(item.size_bytes * n_distinct_files(paths) for item, paths in files)

    def _paths(self, *, doubtful: bool) -> list[str]:
        others = zip(self.items[1:], self.doubts, strict=True)
        return [path for item, doubt in others if bool(doubt) is doubtful for path in item.paths]


@dataclass(frozen=True, slots=True)
class Leak:
    """An image of one set with a duplicate in another set.

    Attributes
    ----------
    first, second : Item
        The images of the first and the second set; the same item where identical files lie in both.
    similarity, agreement : float
        Cosine, and agreement of the pixels, in -1..1; 1 for identical files.
    """

    first: Item
    second: Item
    similarity: float
    agreement: float


@dataclass(frozen=True, slots=True, repr=False)
class Duplicates(ShortRepr):
    """The result of `Collection.find_duplicates` or `Collection.find_leaks`.

    Attributes
    ----------
    groups : list of DuplicateGroup
        Those to review first; then the lowest agreement first.
    leaks : list of Leak
        From `find_leaks`: every pair across the two sets, the highest agreement first.
    n_images : int
        Number of images compared.
    threshold : float
        The match threshold: images that agree more are duplicates.
    calibration : Threshold or None
        The calibration of that threshold, where a false-alarm rate was stated.
    expected_rate : float or None
        Estimated share of images without a duplicate that have a false match. Without a stated rate it is
        extrapolated from the images that agree nearly as well as duplicates do; where many do, they may be
        different photographs of one scene.
    n_without_thumbnail : int
        Images without a thumbnail, which cannot be verified.
    thumbnails : Thumbnails
        Of the collection, for notebooks.
    """

    groups: list[DuplicateGroup]
    leaks: list[Leak] = field(default_factory=list)
    n_images: int = 0
    threshold: float = dense.MATCH_AGREEMENT
    calibration: Threshold | None = None
    expected_rate: float | None = None
    n_without_thumbnail: int = 0
    thumbnails: Thumbnails = field(default_factory=Thumbnails, repr=False, compare=False)

    @property
    def is_doubtful(self) -> bool:
        """Whether so many matches may be false that somebody should look, and no rate was stated.

        Then every group needs a look, and only identical files are redundant for certain.
        """
        return is_doubtful(self.expected_rate, self.calibration)

    def _repr_html_(self) -> str:
        leaks = ((leak.agreement, "a leak", [leak.first, leak.second]) for leak in self.leaks)
        groups = ((group.agreement, f"keep the first: {group.why}", group.items) for group in self.groups)
        rows = [
            (f"agreement {agreement:.2f}, {text}", [ShownImage(item.id, item.path) for item in items])
            for agreement, text, items in (*leaks, *groups)
        ]
        return rows_html(rows, self.thumbnails)


def is_doubtful(expected_rate: float | None, calibration: Threshold | None) -> bool:
    """Return whether a higher rate of false matches is expected than anybody should trust unseen."""
    return calibration is None and (expected_rate or 0) > _DOUBTFUL_RATE
