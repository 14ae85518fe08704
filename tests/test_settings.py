"""Settings, from flags and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from insession.serve import command as serve
from insession.settings import load
from models.errors import UserError


@pytest.mark.parametrize("bootstrap", ["kafka:9092", "a:1,b.c:22,[::1]:9092", "[fe80::1]:9092"])
def test_brokers_are_hosts_with_ports(bootstrap: str) -> None:
    assert load(bootstrap=bootstrap).bootstrap == bootstrap


@pytest.mark.parametrize("bootstrap", ["nonsense", "a:1,", "a:1, b:2", "::1:9092", "[::1]", "[::1:9092", ""])
def test_what_is_no_host_and_port_is_refused_in_words(bootstrap: str) -> None:
    with pytest.raises(UserError) as refused:
        load(bootstrap=bootstrap)
    assert str(refused.value) == (
        "--bootstrap (or INSESSION_BOOTSTRAP): Kafka brokers, host:port, several with commas; "
        f"got {bootstrap!r}"
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"topic_prefix": "a b"}, "--topic-prefix .* begin with, of a-z, .*; got 'a b'"),
        ({"partitions": "0"}, "--partitions .*: Input should be greater than or equal to 1; got '0'"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(**given)


@pytest.mark.parametrize(
    ("hold", "held"), [("0-3,7", {0, 1, 2, 3, 7}), ("5", {5}), ("2,0-1,1", {0, 1, 2}), ("", None)]
)
def test_partitions_to_hold_are_numbers_and_ranges(hold: str, held: set[int] | None) -> None:
    assert load(hold=hold).held == held


@pytest.mark.parametrize("hold", ["x", "3-", "1,,2", "-1", "7-3", "1-2-3"])
def test_what_is_no_range_of_partitions_is_refused(hold: str) -> None:
    with pytest.raises(UserError, match="--hold"):
        load(hold=hold).held  # noqa: B018


def test_a_token_comes_from_the_environment_or_a_file_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load().bearer == ""
    monkeypatch.setenv("INSESSION_TOKEN", "s3cret")
    assert load().bearer == "s3cret"
    assert "s3cret" not in repr(load())
    monkeypatch.setenv("INSESSION_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(UserError, match="both set"):
        load().bearer  # noqa: B018
    monkeypatch.delenv("INSESSION_TOKEN")
    with pytest.raises(UserError, match="can't be read"):
        load().bearer  # noqa: B018
    (tmp_path / "token").write_text("of-a-file\n")
    assert load().bearer == "of-a-file"
    for wrong in ("", "a b", "é"):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(UserError) as refused:
            load().bearer  # noqa: B018
        assert not wrong or wrong not in str(refused.value)


def test_a_token_is_no_flag() -> None:
    assert not [param for param in serve.params if "token" in str(param.name)]
