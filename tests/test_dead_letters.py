"""`insession dead-letters` on a broker with a worker: what was not applied is listed, shown, and put back once repaired."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from insession.dead_letters import readable
from insession.main import group
from models import bundle
from models.errors import UserError
from models.events import encode
from models.recording import Record, partition_of
from models.states import decode_embedding
from models.topics import Topics
from streams import dead_letters, topics
from streams.broker import Broker
from streams.reader import reader
from streams.topics import Client
from tests.made import a_bundle
from tests.path import (
    PARTITIONS,
    as_record,
    click,
    ends,
    published,
    send,
    standing,
    wait_until_applied,
    worker,
)

NOW = 1_700_000_000_000


def run(place: tuple[Client, Topics], *arguments: str) -> Result:
    client, names = place
    common = ("--bootstrap", str(client["bootstrap.servers"]), "--topic-prefix", names.prefix)
    result = CliRunner().invoke(group, ["dead-letters", *arguments, *common])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def on_clicks(place: tuple[Client, Topics]) -> list[tuple[str, bytes | None, bytes | None, dict[str, bytes]]]:
    client, names = place
    with reader(client) as source:
        return [
            (f"{number}:{m.offset()}", m.key(), m.value(), dict(m.headers() or []))
            for number in range(PARTITIONS)
            for messages, _ in source.read(names.clicks, number)
            for m in messages
        ]


def applied(place: tuple[Client, Topics], user: str) -> list[str]:
    """The event ids in a user's open sessions."""
    embeddings, *_ = published(place)
    value = embeddings[user.encode()]  # type: ignore[index]
    return [event.event_id for session in decode_embedding(value).state.sessions for event in session.events]


def wait(place: tuple[Client, Topics]) -> None:
    """Wait until all that is on `clicks` is applied."""
    with reader(place[0]) as source:
        last = {
            number: position
            for number in range(PARTITIONS)
            for _, position in source.read(place[1].clicks, number)
        }
    wait_until_applied(place, last)


@pytest.mark.kafka
def test_letters_are_listed_shown_and_put_back(kafka: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": kafka.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    place = (client, names)
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    bundle.write(tmp_path / "bundles", a_bundle(40))
    assert "no dead letters" in run(place, "list").stdout

    def bad(user: str, value: bytes, key: bytes | None = b"") -> Record:
        key = user.encode() if key == b"" else key
        return Record(partition_of(user.encode(), PARTITIONS), None, NOW, key, (), value)

    sent = [
        *(as_record(click(f"u{at}", 100 + at, NOW)) for at in range(6)),
        bad("u1", encode(click("u1", 1, NOW))[:-1]),
        bad("u2", encode(click("u2", 2, NOW))[:-1]),
        bad("u3", encode(click("u3", 3, NOW)), None),
        bad("u4", encode(click("u4", 4, NOW))[:-1] + b',"note":"' + b"n" * 100_000 + b'"'),
        bad("u5", b"\xff\x1b[31m\x00"),
        bad("u1", encode(click("u1", 6, NOW - 60 * 60_000))),
        # Of another user than the key says: it moves to that one's partition.
        Record(partition_of(b"u5", PARTITIONS), None, NOW, b"u5", (), encode(click("u7", 7, NOW))),
    ]
    assert partition_of(b"u5", PARTITIONS) != partition_of(b"u7", PARTITIONS)
    with worker(place, tmp_path / "bundles", tmp_path / "state"):
        send(place, sent)
        offsets = standing(place, sent)
        wait_until_applied(place, ends(sent, offsets))
        origins = {
            number: f"{item.partition}:{offset}"
            for number, (item, offset) in enumerate(zip(sent[6:], offsets[6:], strict=True), 1)
        }

        listed = json.loads(run(place, "list", "--limit", "3", "--json").stdout)
        assert {name: part["count"] for name, part in listed.items()} == {"unreadable": 6, "late": 1}
        assert len(listed["unreadable"]["newest"]) == 3
        text = run(place, "list", "--reason", "unreadable").stdout
        assert text.startswith("unreadable: 6\n")
        assert "late" not in text
        assert "Input data was truncated" in run(place, "list", "--limit", "9").stdout

        shown = run(place, "show", origins[5]).stdout
        assert r"\xff\x1b[31m\x00" in shown
        assert "unreadable" in shown
        assert json.loads(run(place, "show", origins[3], "--json").stdout)["key"] is None
        large = run(place, "show", origins[4])
        assert "100,096 bytes" in large.stdout or "cut: 65,536 of" in large.stdout
        assert len(large.stdout) < 6_000
        assert run(place, "show", origins[4], "--raw").stdout_bytes == sent[9].value
        with pytest.raises(UserError, match=r"no dead letter of 1:999"):
            run(place, "show", "1:999")
        assert run(place, "show", "one").exit_code == 2

        # Repaired by hand, wrongly and then rightly.
        before = on_clicks(place)
        file = tmp_path / "event.json"
        file.write_bytes(b'{"type":"click"}')
        refused = run(place, "put-back", origins[1], "--value", str(file))
        assert refused.exit_code == 1
        assert "unreadable again: Object missing required field" in refused.stdout
        assert "0 of 1" in refused.stdout
        late = run(place, "put-back", "--reason", "late")
        assert (late.exit_code, "late again: 3600000 ms behind" in late.stdout) == (1, True)
        file.write_bytes(encode(click("u1", 1, NOW)))
        assert (
            "1 of 1 would be" in run(place, "put-back", origins[1], "--value", str(file), "--dry-run").stdout
        )
        assert on_clicks(place) == before
        assert run(place, "put-back", origins[1], "--value", str(file)).exit_code == 0
        [new] = [one for one in on_clicks(place) if one not in before]
        assert new[1:] == (b"u1", file.read_bytes(), {dead_letters.PUT_BACK: origins[1].encode()})
        again = run(place, "put-back", origins[1], "--value", str(file))
        assert f"put back before, and is {new[0]}" in again.stdout
        assert again.exit_code == 1

        # The rest through a command; what it can't repair is left out.
        script = tmp_path / "repair.py"
        script.write_text(
            "import sys\nvalue = sys.stdin.buffer.read()\nassert value.isascii(), 'beyond repair'\n"
            "sys.stdout.buffer.write(value if value.endswith(b'}') else value + b'}')\n"
        )
        through = f"{sys.executable} {script}"
        result = run(place, "put-back", "--reason", "unreadable", "--through", through, "--json")
        assert result.exit_code == 1
        outcomes = {outcome["origin"]: outcome for outcome in json.loads(result.stdout)}
        assert {name for name, one in outcomes.items() if "left_out" in one} == {origins[1], origins[5]}
        assert "beyond repair" in outcomes[origins[5]]["left_out"]
        stands = {number: outcomes[origins[number]]["stands"] for number in (2, 3, 4, 7)}
        assert stands[7].startswith(f"{partition_of(b'u7', PARTITIONS)}:")
        wait(place)
    for number, user in ((1, "u1"), (2, "u2"), (3, "u3"), (4, "u4"), (7, "u7")):
        assert f"e{number:05}" in applied(place, user)
    assert len(published(place)[3]) == 7  # type: ignore[arg-type]

    # Once `clicks` has lost it, a cut value is no more.
    admin = AdminClient({**client})
    partition, offset = map(int, origins[4].split(":"))
    for future in admin.delete_records([TopicPartition(names.clicks, partition, offset + 1)]).values():
        future.result()
    with pytest.raises(UserError, match=r"first 65,536 of 100,\d+ bytes"):
        run(place, "show", origins[4], "--raw")


def test_letters_are_put_back_on_the_embedded_broker_too(embedded: Broker, tmp_path: Path) -> None:
    client: Client = {"bootstrap.servers": embedded.bootstrap}
    names = Topics(f"test-{secrets.token_hex(4)}-")
    place = (client, names)
    topics.ensure(client, names, partitions=PARTITIONS, retention_ms=-1)
    bundle.write(tmp_path / "bundles", a_bundle(40))
    sent = [as_record(click("u1", 1, NOW), b"{")]
    with worker(place, tmp_path / "bundles", tmp_path / "state"):
        send(place, sent)
        wait_until_applied(place, ends(sent, standing(place, sent)))
        [letter] = dead_letters.letters(client, names)
        event = encode(click("u1", 1, NOW))
        [outcome] = dead_letters.put_back(client, names, [letter], lambda value: event)
        assert outcome.stands == f"{letter.partition}:1"
        [outcome] = dead_letters.put_back(client, names, [letter], lambda value: event)
        assert "put back before" in str(outcome.left_out)
        wait(place)
    assert applied(place, "u1") == ["e00001"]


def test_without_topics_it_says_how_to_make_them(embedded: Broker) -> None:
    place = ({"bootstrap.servers": embedded.bootstrap}, Topics("absent-"))
    with pytest.raises(UserError, match=r"no topic absent-clicks-dead-letters; make it"):
        run(place, "list")


@pytest.mark.parametrize(
    "arguments",
    [[], ["1:2", "--reason", "late"], ["1:2", "1:3", "--value", __file__], ["--reason", "dull"], ["1:x"]],
)
def test_what_is_to_be_put_back_is_named_in_one_way(arguments: list[str]) -> None:
    assert CliRunner().invoke(group, ["dead-letters", "put-back", *arguments]).exit_code == 2


def test_bytes_are_shown_without_what_moves_a_terminal() -> None:
    assert readable(b'{"a":"\xc3\xa9"}\n\x1b[2J\xff') == '{"a":"é"}\\n\\x1b[2J\\xff'
    assert readable(b"x" * 10, 4) == "xxxx ... 6 more"
    assert readable(None) == "null"
