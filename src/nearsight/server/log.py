"""Logs: one JSON object a line, each with the id of its request."""

import json
import logging
import textwrap
import time
from contextvars import ContextVar
from typing import Any

import orjson

from nearsight.text_format import printable, without_passwords

request_id: ContextVar[str] = ContextVar("request_id", default="")

# What a record has anyway; the rest was passed as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class TextFormatter(logging.Formatter):
    """Writes a record as one line of text; only a traceback takes more, and these are indented.

    A client chooses what it names: no line of its own may look like one of the service.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return without_passwords(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in `logging`
        """Return the line without a traceback."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name in `logging`
        """Return a traceback."""
        return textwrap.indent(printable(super().formatException(ei), keep="\n"), "    ")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    _second, _moment = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        second = int(record.created)
        if second != self._second:
            self._moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        facts: dict[str, Any] = {
            "time": f"{self._moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if id := request_id.get():
            facts["request_id"] = id
        facts.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        try:
            line = orjson.dumps(facts, default=str).decode()
        except TypeError:  # a path that is not valid UTF-8
            line = json.dumps(facts, default=str)
        return without_passwords(line)


def configure(style: str) -> None:
    """Send the logs of the service and of its HTTP server to stderr."""
    handler = logging.StreamHandler()
    text = TextFormatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if style == "json" else text)
    for name, level in (("nearsight", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)
