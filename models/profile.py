"""What a visitor's deeds come to at a moment: what the features compare each candidate with."""

from __future__ import annotations

from models import _kernel
from models._kernel import Profile
from models.listings import Listings
from models.sessions import WINDOWS, Windows
from models.space import Space
from models.types import Types
from models.visitor import Visitor

__all__ = ["Profile", "profile"]


def profile(
    visitor: Visitor,
    timestamp: int,
    *,
    space: Space,
    types: Types,
    listings: Listings,
    own: bool,
    similar: bool = True,
    windows: Windows = WINDOWS,
) -> Profile:
    """The visitor's profile at `timestamp` (ms): of the session that is open then, and of what was done in each
    session that ended within two weeks before, each once.

    The open one is the newest, unless its last event is more than the gap before. Its vector counts where it is of the
    space's `own` bundle. Without `similar` it is as if no listing and no type had a vector.

    In a space of d dimensions a profile has these, of which `open` and `empty` can be asked for and the kernel uses the rest:

    - `queries`, float32 [K, d]: each history's centroid in each market, the last long click's vector and the
      session's, and `columns`, [K], the feature that each is for, which is the greatest of its similarities;
    - `type_similarities`, float32 [T]: of the user's type to each listing type; empty where it is not known;
    - `acted` and `counts`: the known listings acted on in the open session, by row, the last one last, and how often
      each; `inside`: the newest of these actions was in a search's results;
    - `shown`: the rows of what the session's last search showed first;
    - `log_price`: log2 of the geometric mean price of what was acted on in the session; NaN where none is known;
    - `open`: a session is; `empty`: nothing is known that could rank anything.
    """
    return _kernel.profile(
        visitor.known,
        timestamp,
        windows.gap,
        windows.history,
        space.table,
        listings.ranges,
        types.similarities,
        similar,
        own,
    )
