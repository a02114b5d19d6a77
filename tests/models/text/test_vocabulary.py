from nearsight.models.text.conse import classes
from nearsight.models.text.vocabulary import default_vocabulary


def test_the_vocabulary_has_every_class_of_imagenet_and_more() -> None:
    texts = [word.text for word in default_vocabulary()]
    assert texts[:1000] == [names[0] for names, _ in classes()]
    assert {"woman", "beach", "wedding", "map", "tree"} <= set(texts[1000:])
    assert len({text.lower() for text in texts[1000:]}) == len(texts) - 1000


def test_categories_hold_what_they_should() -> None:
    categories = {word.text: word.categories for word in default_vocabulary()}
    assert categories["robin"] == ("bird", "animal")
    assert {"dog", "mammal", "animal"} <= set(categories["beagle"])
    assert "vehicle" in categories["minivan"]
    assert "people" in categories["woman"]
    # No chain has a category twice, or the word itself.
    for text, chain in categories.items():
        assert len(set(chain)) == len(chain)
        assert text not in chain
