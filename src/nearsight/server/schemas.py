"""What requests hold: the class of bodies that the framework parses, and a description of the others."""

import difflib
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict

from nearsight.server.errors import Problem


class RequestBody(BaseModel):
    """A JSON body. An unknown member is refused: an option that is misspelled would do nothing."""

    model_config = ConfigDict(extra="forbid")


def refuse_unknown(sent: Collection[str], known: Collection[str]) -> None:
    """Refuse members of a body that is parsed by hand.

    Raises
    ------
    Problem
        422: one is not known.
    """
    for name in sorted(set(sent) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}" if near else f"there are {', '.join(sorted(known))}"
        raise Problem(422, f"{name!r} is not known here; {hint}", param=name)


_IMAGE = {"type": "string", "description": "A data URI, base64, or (where allowed) a URL."}
_BINARY = {"type": "string", "format": "binary"}

_EMBEDDING_INPUT = {
    "oneOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "object", "properties": {"image": _IMAGE}, "required": ["image"]},
                    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
                ]
            },
        },
    ]
}

_EMBEDDING_OPTIONS: dict[str, Any] = {
    "model": {"type": ["string", "null"], "description": "An alias; by default the default model."},
    "encoding_format": {"enum": ["float", "base64", None], "description": "By default float."},
    "dimensions": {"type": ["integer", "null"], "minimum": 1},
}

_NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
# Parameters that are refused unless they match, by their names.
_PATTERNS = {
    **dict.fromkeys(("name", "baskets", "classifier", "detector"), _NAME_PATTERN),
    "key": "^[A-Za-z_][A-Za-z0-9_]{0,62}$",
}


def describe_names(document: dict[str, Any]) -> dict[str, Any]:
    """Say in a description of the API which names collections and what belongs to them may have."""
    operations = [each for path in document["paths"].values() for each in path.values()]
    for parameter in (each for operation in operations for each in operation.get("parameters", ())):
        pattern = _PATTERNS.get(parameter["name"])
        schema = parameter["schema"]
        for option in schema.get("anyOf", [schema]):
            if pattern and option.get("type") == "string":
                option.setdefault("pattern", pattern)
    document["components"]["schemas"]["NewCollection"]["properties"]["name"]["pattern"] = _NAME_PATTERN
    return document


PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "error": {"type": "object"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}

#: How routes of dialects document their problems, which have the shape of the dialect.
JSON_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": "A problem", "content": {"application/json": {}}} for status in ("4XX", "5XX")
}

EMBEDDINGS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "input": _EMBEDDING_INPUT,
                        "modality": {"enum": ["text", "image", None]},
                        "messages": {
                            "type": "array",
                            "items": {"type": "object"},
                            "description": "As vLLM has it.",
                        },
                        **_EMBEDDING_OPTIONS,
                    },
                    "anyOf": [{"required": ["input"]}, {"required": ["messages"]}],
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "array", "minItems": 1, "items": _BINARY},
                        **_EMBEDDING_OPTIONS,
                    },
                }
            },
            "image/*": {"schema": _BINARY},
        },
    }
}

IMAGES_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "minItems": 1, "items": _BINARY}},
                }
            }
        },
    }
}

_METADATA = {
    "description": "An object for all images, or a list of one for each.",
    "oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
}

ITEMS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "array", "minItems": 1, "items": _BINARY},
                        "metadata": {"type": "string", "description": "JSON, as below."},
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "minItems": 1, "items": _IMAGE},
                        "metadata": _METADATA,
                    },
                }
            },
        },
    }
}

#: Images that a detector scores.
SCORED_IMAGES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "items": _BINARY}},
                }
            }
        },
    }
}

_TEXTS = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_VECTOR = {"type": "array", "items": {"type": "number"}}
_QUERY = {
    "id": {**_TEXTS, "description": "Images of the collection."},
    "text": {"type": "string"},
    "not_id": {**_TEXTS, "description": "Images of the collection that are not wanted."},
    "not_text": {**_TEXTS, "description": "What is not wanted."},
    "cluster": {**_TEXTS, "description": "Search only in clusters of these names or numbers."},
    "where": {"type": "string", "description": "Search only among the images that match."},
    "k": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10},
    "offset": {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 0},
    "exact": {"type": "boolean", "default": False},
    "verify": {"type": "boolean", "default": False, "description": "Images of the very same object first."},
    "model": {"type": "string", "description": "The alias of the model that an upgrade moves to."},
}


#: What a search may name.
SEARCH_KEYS = {"image", "not_image", "vector", "not_vector", *_QUERY}


def _some_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "array", "items": schema}]}


SEARCH: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        **{name: _some_of(_IMAGE) for name in ("image", "not_image")},
                        **{name: _some_of(_VECTOR) for name in ("vector", "not_vector")},
                        **_QUERY,
                    },
                    "anyOf": [{"required": [name]} for name in ("image", "vector", "id", "text")],
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        **{name: {"type": "array", "items": _BINARY} for name in ("image", "not_image")},
                        **_QUERY,
                    },
                }
            },
            "image/*": {"schema": _BINARY},
        },
    }
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object", **schema}}}
    return {"requestBody": {"required": True, "content": content}}


_MODEL = {"type": ["string", "null"], "description": "An alias; by default the default model."}
_DIMENSIONS = {"type": ["integer", "null"], "minimum": 1}
_SOME_TEXTS = {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}
_SOME_IMAGES = {"type": "array", "minItems": 1, "items": _IMAGE}
_CONTENT = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["content"],
        "properties": {
            "content": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {"type": {"type": "string"}, "text": {"type": "string", "minLength": 1}},
                },
            }
        },
    },
}

#: What clients of other services send.
COHERE = _json(
    {
        "properties": {
            "images": _SOME_IMAGES,
            "texts": _SOME_TEXTS,
            "inputs": _CONTENT,
            "embedding_types": {"type": ["array", "null"], "items": {"enum": ["float", "base64"]}},
            "model": _MODEL,
            "output_dimension": _DIMENSIONS,
        },
        "oneOf": [{"required": [name]} for name in ("images", "texts", "inputs")],
    }
)
VOYAGE = _json(
    {
        "required": ["inputs"],
        "properties": {
            "inputs": _CONTENT,
            "model": _MODEL,
            "encoding_format": {"enum": ["base64", None]},
            "output_dtype": {"enum": ["float", None]},
            "output_dimension": _DIMENSIONS,
        },
    }
)
WEAVIATE = _json(
    {
        "properties": {"texts": _SOME_TEXTS, "images": _SOME_IMAGES},
        "anyOf": [{"required": ["texts"]}, {"required": ["images"]}],
    }
)
TEI = _json(
    {
        "required": ["inputs"],
        "properties": {
            "inputs": {"anyOf": [{"type": "string", "minLength": 1}, _SOME_TEXTS]},
            "dimensions": _DIMENSIONS,
        },
    }
)


def table_body(columns: str) -> dict[str, Any]:
    """Return the description of a body that is a table with these columns."""
    of_server = {"type": "string", "description": "A file of the server, below a root."}
    one_file = {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
    named_file = {"type": "object", "required": ["file"], "properties": {"file": of_server}}
    return {
        "requestBody": {
            "required": True,
            "description": f"A table with the columns {columns}.",
            "content": {
                "multipart/form-data": {"schema": one_file},
                "text/csv": {"schema": _BINARY},
                "application/json": {"schema": named_file},
            },
        }
    }


def _face_images(**fields: Any) -> dict[str, Any]:
    ids = {"type": "array", "items": {"type": "string"}, "description": "Images of the collection."}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"image": {"type": "array", "items": _BINARY}, "ids": ids, **fields},
                        "required": list(fields),
                    }
                },
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {"images": {"type": "array", "items": _IMAGE}, "ids": ids, **fields},
                        "required": list(fields),
                    }
                },
            },
        }
    }


FACE_IMAGES = _face_images()
NAMED_FACE_IMAGES = _face_images(name={"type": "string", "minLength": 1, "maxLength": 200})
