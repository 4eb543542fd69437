"""The throw-away certificate of one run of a TLS listener. It says as little as can be, not even the time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["certificate"]

_FROM: Final = datetime(2000, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(2100, 1, 1, tzinfo=UTC)


def certificate() -> tuple[bytes, bytes]:
    """Make a P-256 key and its certificate. Returns both in PEM, and the certificate alone in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    nobody = x509.Name([])
    made = (
        x509.CertificateBuilder(subject_name=nobody, issuer_name=nobody)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + made.public_bytes(Encoding.PEM), made.public_bytes(Encoding.DER)
