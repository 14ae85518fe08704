"""How to reach brokers that demand encryption or a password: settings from the environment alone.

Not flags: what stands on a command line, anybody on the machine can read.
"""

from __future__ import annotations

import os
import ssl
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from models.errors import UserError


class Security(BaseSettings):
    """What every Kafka client is told besides where the brokers are."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="how brokers are talked to: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", ""] = Field(
        default="",
        description="how the password is shown to be known: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`",
    )
    sasl_username: str = Field(default="", description="with SASL: the user")
    sasl_password: SecretStr = Field(default=SecretStr(""), description="with SASL: the user's password")
    ssl_ca: str = Field(
        default="",
        description="with SSL: a PEM file of the authorities to trust, instead of the system's",
    )
    ssl_certificate: str = Field(
        default="", description="with SSL: a PEM file of our certificate, where brokers demand one"
    )
    ssl_key: str = Field(default="", description="with SSL: a PEM file of the certificate's private key")
    ssl_key_password: SecretStr = Field(
        default=SecretStr(""), description="with SSL: the password of that file, where it has one"
    )

    @property
    def client_security(self) -> dict[str, str | int | float | bool]:
        """By librdkafka's names; nothing where nothing is demanded."""
        told = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value(),
            "ssl.ca.location": self.ssl_ca,
            "ssl.certificate.location": self.ssl_certificate,
            "ssl.key.location": self.ssl_key,
            "ssl.key.password": self.ssl_key_password.get_secret_value(),
        }
        plain = self.security_protocol == "PLAINTEXT"
        return {} if plain else {name: value for name, value in told.items() if value}


def check(settings: Security, prefix: str) -> None:
    """Raise UserError where the settings don't go together, or a file can't be read. Says names, never a password."""
    protocol = settings.security_protocol
    given = {field: bool(getattr(settings, field)) for field in Security.model_fields}

    def name(field: str) -> str:
        return f"{prefix}{field.upper()}"

    for kind, fits, protocols in (
        ("sasl_", protocol.startswith("SASL_"), "SASL_PLAINTEXT or SASL_SSL"),
        ("ssl_", protocol.endswith("SSL"), "SSL or SASL_SSL"),
    ):
        named = [name(field) for field, there in given.items() if field.startswith(kind) and there]
        if named and not fits:
            raise UserError(
                f"{named[0]} is set, and {name('security_protocol')} is {protocol}, which has no use for it; "
                f"set that to {protocols}"
            )
    if protocol == "PLAINTEXT":
        return
    if protocol.startswith("SASL_"):
        missing = [name(field) for field, there in given.items() if field.startswith("sasl_") and not there]
        if missing:
            raise UserError(
                f"{name('security_protocol')} is {protocol}, which needs {', '.join(missing)} too; mechanisms are "
                "PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"
            )
    if given["ssl_certificate"] != given["ssl_key"]:
        raise UserError(f"{name('ssl_certificate')} and {name('ssl_key')} go together: set both or none")
    if given["ssl_key_password"] and not given["ssl_key"]:
        raise UserError(f"{name('ssl_key_password')} is set, and there is no {name('ssl_key')}")
    for field in ("ssl_ca", "ssl_certificate", "ssl_key"):
        path = getattr(settings, field)
        if path and not (os.path.isfile(path) and os.access(path, os.R_OK)):
            raise UserError(f"{name(field)}: {path} is no file that can be read")
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca or None)
    except ssl.SSLError as error:
        raise UserError(f"{name('ssl_ca')}: {settings.ssl_ca} has no certificates: {error}") from None
    if settings.ssl_key:
        try:
            # Without a password OpenSSL would ask the terminal for one.
            password = settings.ssl_key_password.get_secret_value()
            context.load_cert_chain(settings.ssl_certificate, settings.ssl_key, password)
        except ssl.SSLError as error:
            raise UserError(
                f"{name('ssl_certificate')}, {name('ssl_key')} and {name('ssl_key_password')} do not go "
                f"together: {error}"
            ) from None


def off(prefix: str) -> dict[str, str]:
    """The environment of processes that use a broker of our own, which demands nothing."""
    return {f"{prefix}{field.upper()}": "" for field in Security.model_fields}
