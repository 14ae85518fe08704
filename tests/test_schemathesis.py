"""Schemathesis, with all its checks, asks a sidecar what its OpenAPI document allows and what it does not."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec

from insession import contracts
from insession.processes import insession
from models import bundle, listings, ranker
from models.bundle import Training
from models.listings import Listing
from models.sessions import Action, Session, State, UserEmbedding
from models.states import user_key
from models.store import Store
from serving import standing
from serving.standing import Standing
from tests.made import unit

SECONDS = 60
IDS = [*"0123456789abcdefghijklmnopqrstuvwxyzABCDEF", "00", "000"]
"""Of listings and users: those that are generated most."""
CONFIG = contracts.DOCS.parent / "schemathesis.toml"


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    made = bundle.assemble(
        listings=listings.collect([Listing(listing_id=name, market="0") for name in IDS]),
        vectors=unit(len(IDS), 8),
        ranker=ranker.default(),
        training=Training(source="embeddings", data="made"),
    )
    named = bundle.load(bundle.write(tmp_path / "bundles", made))
    # Visits right after the beginning of time: many of the timestamps that are generated are small.
    visit = Session(0, (Action(0, "e", "click", "0", None, None), Action(1, "f", "click", "1", None, None)))
    user = UserEmbedding(
        user_id="0",
        vector=named.encode(visit),
        bundle=named.name,
        as_of=1,
        partition=0,
        offset=0,
        state=State(sessions=(visit,), last=1),
    )
    with closing(Store(tmp_path / "state" / "serve")) as store:
        # Once caught up, so that partitions that are not there are refused.
        full = Standing(cluster="c", topics={}, seen=1, partitions=4, held=None)
        store.write(standing.stands(full))
        for name in IDS:
            store.write(
                {user_key(name.encode()): msgspec.json.encode(msgspec.structs.replace(user, user_id=name))}
            )
    flags = ["--bootstrap", "127.0.0.1:1", "--bundle", str(tmp_path / "bundles"), "--port", "0"]
    flags += ["--state", str(tmp_path / "state")]
    with insession("serve", *flags, ready="serving on ", log=tmp_path / "log") as sidecar:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
        command += [str(contracts.DOCS / "openapi.json"), "--url", sidecar.line.removeprefix("serving on ")]
        command += ["--checks", "all", "--max-time", str(SECONDS), "--max-response-time", "15", "--seed", "1"]
        command += ["--workers", "2", "--generation-database", "none", "--warnings", "off", "--no-color"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=3 * SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Traceback" not in (tmp_path / "log").read_text()
