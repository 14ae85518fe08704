"""Logs of the processes, on stderr: a JSON object a line, or plain lines on a terminal."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Json(logging.Formatter):
    """`{"time": ..., "level": ..., "logger": ..., "message": ..., "error": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def start() -> None:
    """Log our own INFO and others' warnings. Said here and not left to Faust, which would take `print` for a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(PLAIN) if sys.stderr.isatty() else Json())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("insession").setLevel(logging.INFO)
    # An ERROR for each try to reach a broker that is away: the end of the process says it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
