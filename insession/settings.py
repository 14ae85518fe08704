"""Settings of the processes, from `INSESSION_*` in the environment; all but security are also flags, which come first."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from insession import security
from insession.security import Security
from models.errors import UserError
from models.topics import PARTITIONS, Topics, numbers

PREFIX = "INSESSION_"
ADDRESS = r"([^\s:,\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}"
"""host:port, and [::1]:port."""

F = TypeVar("F", bound=Callable[..., Any])


class Settings(Security):
    """What the rooms are told from outside."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    bootstrap: str = Field(
        default="127.0.0.1:9092",
        pattern=rf"^{ADDRESS}(,{ADDRESS})*$",
        description="Kafka brokers, host:port, several with commas",
    )
    topic_prefix: str = Field(
        default="",
        pattern=r"^[a-zA-Z0-9._-]*$",
        description="what the names of the topics begin with, of a-z, A-Z, 0-9, `.`, `_` and `-`",
    )
    partitions: int = Field(
        default=PARTITIONS, ge=1, le=10_000, description="partitions of topics that are made"
    )
    replication: int = Field(default=1, ge=1, le=15, description="replicas of topics that are made")
    application: str = Field(
        default="insession",
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="names the group and transactions of workers that share the work, of a-z, A-Z, 0-9, `.`, `_` and `-`",
    )
    state: Path = Field(
        default=Path(".insession"), description="folder for what processes keep on disk; it may be lost"
    )
    bundle: Path = Field(
        default=Path("bundles"),
        description="a bundle, a folder of bundles whose `current` is taken, or `models:/NAME@ALIAS` of MLflow's registry",
    )
    mlflow: str = Field(
        default="sqlite:///mlflow.db", min_length=1, description="MLflow's tracking store, with its registry"
    )

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(
        default=8080, ge=0, le=65535, description="port of the sidecar; 0: a free one, which is printed"
    )
    hold: str = Field(
        default="",
        pattern=r"^(\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*)?$",
        description="the partitions whose users a sidecar holds, like 0-3,7 [all]",
    )
    shadow: Path | None = Field(
        default=None,
        description="a second bundle that ranks too, after the answer, for the metrics; `models:/NAME@ALIAS` too [none]",
    )
    shadow_share: float = Field(
        default=0.1, ge=0, le=1, description="share of the rankings that the shadow's bundle makes too"
    )
    health_port: int | None = Field(
        default=None, ge=0, le=65535, description="port of a worker's health and metrics [off]"
    )

    variants: str = Field(
        default="",
        description="variants of the ranking for shares of the users, as `--variant` has them, several with commas",
    )
    experiment: str = Field(
        default="",
        max_length=256,
        description="names the experiment: another name deals the users out to the variants anew",
    )
    peers: str = Field(
        default="",
        description="sidecars that hold other partitions, as `--peer` has them, several with spaces",
    )
    memory: int = Field(
        default=1_024,
        ge=0,
        le=1 << 20,
        description="MB of a sidecar's memory for users' records; those of others are read from its store",
    )
    processes: int = Field(
        default=1, ge=1, le=64, description="processes of the sidecar, each with a store of its own"
    )
    token: SecretStr = Field(
        default=SecretStr(""), description="the bearer token that requests to the sidecar must have"
    )
    token_file: Path | None = Field(default=None, description="a file with that token instead")

    @property
    def bearer(self) -> str:
        """The token; empty where none is demanded. Raises UserError where it can't be read or can't be sent."""
        given = self.token.get_secret_value()
        if self.token_file is not None:
            if given:
                raise UserError(f"{PREFIX}TOKEN and {PREFIX}TOKEN_FILE are both set: set one")
            try:
                given = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{PREFIX}TOKEN_FILE: {self.token_file} can't be read: {error}") from None
            if not given:
                raise UserError(f"{PREFIX}TOKEN_FILE: {self.token_file} is empty")
        if not re.fullmatch(r"[\x21-\x7e]*", given):
            raise UserError(f"{PREFIX}TOKEN: a token has no spaces and only ASCII")
        return given

    @property
    def topics(self) -> Topics:
        return Topics(self.topic_prefix)

    @property
    def held(self) -> frozenset[int] | None:
        """The partitions to hold; None: all. UserError where a range is empty."""
        if not self.hold:
            return None
        try:
            return numbers(self.hold)
        except ValueError as error:
            raise UserError(f"--hold (or {PREFIX}HOLD): {error}") from None

    @property
    def client(self) -> dict[str, str | int | float | bool]:
        """What every Kafka client is told."""
        return {"bootstrap.servers": self.bootstrap, **self.client_security}


def load(**given: object) -> Settings:
    """The settings, flags that are not None before the environment. UserError names the one that is wrong."""
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        # A pattern says nothing to a person; the description says what it means.
        patterned = first["type"] == "string_pattern_mismatch"
        says = Settings.model_fields[name].description if patterned else first["msg"]
        variable = f"{PREFIX}{name.upper()}"
        secret = name in Security.model_fields or name.startswith("token")
        named = variable if secret else f"--{name.replace('_', '-')} (or {variable})"
        got = "" if name.endswith(("password", "token")) else f"; got {first['input']!r}"
        raise UserError(f"{named}: {says}{got}") from None
    security.check(settings, PREFIX)
    return settings


def options(*names: str) -> Callable[[F], F]:
    """Give a command the flags of these settings, and all settings as its argument `settings`."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def run(**arguments: object) -> object:
            given = {name: arguments.pop(name) for name in names}
            return command(settings=load(**given), **arguments)

        decorated: Callable[..., Any] = run
        for name in reversed(names):
            field = Settings.model_fields[name]
            # What an empty one stands for is said at the end of its description: "[all]".
            says, _, otherwise = (field.description or "").removesuffix("]").partition(" [")
            if field.default not in ("", None):
                otherwise = str(field.default)
            variable = f"{PREFIX}{name.upper()}" + (f", else {otherwise}" if otherwise else "")
            flag = f"--{name.replace('_', '-')}"
            decorated = click.option(flag, name, help=f"{says} [{variable}]", default=None)(decorated)
        return decorated  # type: ignore[return-value]

    return decorate
