"""What Faust is told of how to reach the brokers: the same as every other client, in its own words."""

from __future__ import annotations

import ssl

import faust

from streams.topics import Client


def credentials(client: Client) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """Faust's `broker_credentials` for a client's settings; None where nothing is demanded."""
    protocol = str(client.get("security.protocol", "PLAINTEXT"))
    context = _context(client) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL_"):
        return faust.SASLCredentials(
            mechanism=str(client["sasl.mechanism"]),
            username=str(client["sasl.username"]),
            password=str(client["sasl.password"]),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def _context(client: Client) -> ssl.SSLContext:
    authorities = client.get("ssl.ca.location")
    context = ssl.create_default_context(cafile=str(authorities) if authorities else None)
    if "ssl.certificate.location" in client:
        # Without a password OpenSSL would ask the terminal for one.
        password = str(client.get("ssl.key.password", ""))
        context.load_cert_chain(
            str(client["ssl.certificate.location"]), str(client["ssl.key.location"]), password
        )
    return context
