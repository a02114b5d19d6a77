import pytest

from nearsight.analyses.image_lookup import ImageLookup
from nearsight.collection import Item


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("a" * 32, {"a" * 32}),
        ("/shop/shoes/1.jpg", {"a" * 32}),
        ("shoes/1.jpg", {"a" * 32}),
        ("1.jpg", {"a" * 32, "b" * 32}),
        ("2", {"c" * 32}),
        ("hoes/1.jpg", set()),
        ("1.png", set()),
        ("a.b", {"d" * 32}),
    ],
)
def test_names(name, ids):
    paths = ["/shop/shoes/1.jpg", "/shop/hats/1.jpg", "/shop/hats/2.jpg", "/shop/a.b.jpg"]
    items = [Item(letter * 32, path, [path]) for letter, path in zip("abcd", paths, strict=True)]
    assert ImageLookup(items).find(name) == ids
