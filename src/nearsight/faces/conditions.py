"""What the enrolled faces of a bank are like, and how another face differs from all of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from nearsight.faces.pipeline import Face
from nearsight.faces.schema import BankedFace


@dataclass(frozen=True, slots=True)
class BankConditions:
    """What the enrolled faces of a bank are like.

    Attributes
    ----------
    problems : frozenset of str
        Problems that at least one enrolled face has, such as ``"blurred"``.
    has_color, has_gray : bool
        Whether at least one enrolled face has color, and whether one has none.
    """

    problems: frozenset[str] = frozenset()
    has_color: bool = True
    has_gray: bool = True

    @classmethod
    def of(cls, faces: Iterable[BankedFace]) -> "BankConditions":
        """Return the conditions of the faces with a name."""
        enrolled = [face for face in faces if face.person]
        problems = {problem for face in enrolled for problem in face.problems.split(", ") if problem}
        is_gray = {face.is_gray for face in enrolled}
        return cls(frozenset(problems), False in is_gray, True in is_gray)

    def differences(self, face: Face) -> tuple[str, ...]:
        """Return what a face is and no enrolled face is: its problems, ``"gray"`` or ``"in color"``."""
        differences = [problem for problem in face.quality.problems if problem not in self.problems]
        if face.quality.is_gray and not self.has_gray:
            differences.append("gray")
        if not face.quality.is_gray and not self.has_color:
            differences.append("in color")
        return tuple(differences)
