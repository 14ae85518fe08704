"""The session-rec format of next-click data sets: columns SessionId, ItemId and Time (seconds), separated by tabs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from models.datasets import tabular
from models.datasets.importing import Entry
from models.datasets.tabular import WrongCell, identifier, milliseconds
from models.errors import UserError
from models.events import Click

COLUMNS = ("SessionId", "ItemId", "Time")


def events(paths: Sequence[str]) -> Iterator[Entry]:
    """A click for each row, in the files' order; the session is its user too. Raises UserError with file, line and column.

    Event ids are the row's number over all files, so they sort in the source's order.
    """
    row = 0
    for path in paths:
        for line, (session, item, seconds) in tabular.rows(path, COLUMNS, delimiter="\t"):
            row += 1
            try:
                click = Click(
                    event_id=f"{row:09d}",
                    user_id=tabular.user(session, "SessionId"),
                    timestamp=milliseconds(seconds, "Time"),
                    listing_id=identifier(item, "ItemId"),
                )
            except WrongCell as error:
                raise UserError(f"{path}:{line}: {error}") from None
            yield click, session
