import pickle
import re

import pytest

from nearsight import errors
from nearsight.errors import ImageError, NearsightError

LEAVES = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, NearsightError) and error is not NearsightError
]


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = dict(re.findall(r"── (\w+) \((\w+)\)", errors.__doc__))
    assert drawn == {error.__name__: error.__bases__[1].__name__ for error in LEAVES}


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_a_message_is_printed_as_it_is_and_survives_another_process(error):
    raised = error("a.jpg", "is empty") if error is ImageError else error("k is 0; it must be at least 1")
    assert str(raised) == ("a.jpg: is empty" if error is ImageError else "k is 0; it must be at least 1")
    copied = pickle.loads(pickle.dumps(raised))
    assert (type(copied), str(copied)) == (error, str(raised))
    assert isinstance(copied, NearsightError)
