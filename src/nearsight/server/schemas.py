"""The request bodies that are parsed by hand, for the documentation of the API."""

from typing import Any

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
                    "properties": {"image": {"type": "array", "items": _BINARY}, **_EMBEDDING_OPTIONS},
                }
            },
            "image/*": {"schema": _BINARY},
        },
    }
}
