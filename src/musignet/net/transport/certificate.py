"""What TLS needs to know at either end. Certificates name nobody: identities vouch for them inside TLS."""

from __future__ import annotations

import os
import ssl
import tempfile
from importlib import import_module
from pathlib import Path

__all__ = ["client_context", "listener_context"]


def client_context() -> ssl.SSLContext:
    """Return what a dialler needs. Whose certificate it is, is proved later (`wire.tlsauth`), by no authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def listener_context() -> tuple[ssl.SSLContext, bytes]:
    """Make a key and a certificate; return what a listener needs, and the certificate in DER.

    No session tickets: a resumed session would show no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    selfsigned = import_module(".selfsigned", __package__)  # not above: dialling needs none of it, and it takes long
    pem, der = selfsigned.certificate()
    _load(context, pem)
    return context, der


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give the context its key. It reads files only: one that is memory where there is such a thing."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").exists():
        with open(os.memfd_create("musignet-tls"), "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key.pem")
        path.touch(0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
