"""Keys and certificates of a federation.

A site has a key of its own, by which the coordinator knows it; its private half never travels. The
coordinator has an authority of its own, which vouches for the server's certificate.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from u2net_platform.errors import InvalidFederation
from u2net_platform.files import write_bytes, write_secret

SITE_KEY = "site.key"
CA_FILE = "ca.crt"
AUTHORITY_LASTS, SERVER_LASTS = timedelta(days=10 * 365), timedelta(days=2 * 365)
A_MONTH = timedelta(days=30)
CURVE = ec.SECP384R1


def shake_hands(authority: Path, host: str, port: int, name: str, seconds: float) -> datetime:
    """Open and close a TLS connection to who has a certificate of this authority for this name;
    returns when that certificate ends.

    Raises:
        OSError: nobody answers within the seconds, or it is somebody else.
    """
    context = _context(authority)
    with (
        socket.create_connection((host, port), seconds) as plain,
        context.wrap_socket(plain, server_hostname=name) as wrapped,
    ):
        shown: Any = wrapped.getpeercert()
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)


def server_time(authority: Path, host: str, port: int, seconds: float) -> datetime | None:
    """What the clock of that server says; None if it does not tell."""
    context = _context(authority)
    with closing(HTTPSConnection(host, port, timeout=seconds, context=context)) as connection:
        try:
            connection.request("HEAD", "/")
            return parsedate_to_datetime(connection.getresponse().getheader("Date", ""))
        except (OSError, HTTPException, ValueError):  # it has answered before, and that is said
            return None


def _context(authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    # Python 3.13 asks for extensions that certificates of before 2026-12 do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def create_site_key(folder: Path) -> Path:
    """Write a site's key pair, in OpenSSH's format, as Flower reads it; returns the public file.

    Raises:
        NotWritable: there is one already.
    """
    key = ec.generate_private_key(CURVE())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_secret(folder / SITE_KEY, private)
    public = folder / f"{SITE_KEY}.pub"
    write_bytes(public, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return public


def create_authority(folder: Path, hosts: tuple[str, ...]) -> None:
    """Write `ca.crt` and `ca.key`, and `server.crt` and `server.key` for these names or addresses.

    Raises:
        NotWritable: there is one already.
        InvalidFederation: a host is none.
    """
    for host in hosts:
        _host(host)  # before a file is written
    authority = ec.generate_private_key(CURVE())
    issuer = _name("u2net federation")
    certificate = (
        _builder(issuer, issuer, authority.public_key(), authority.public_key(), AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .sign(authority, SHA256())
    )
    server = ec.generate_private_key(CURVE())
    for name, key in (("ca", authority), ("server", server)):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(folder / f"{name}.key", pem)
    write_bytes(folder / CA_FILE, certificate.public_bytes(Encoding.PEM))
    certify_server(folder, hosts)


def certify_server(folder: Path, hosts: tuple[str, ...]) -> datetime:
    """Let the authority of a folder sign a certificate for its `server.key`; returns its end, which
    is not after the authority's own.

    Raises:
        OSError, ValueError: a file of the authority is gone, or is none; or it ends within a month.
    """
    authority, server = (_private_key(folder / f"{name}.key") for name in ("ca", "server"))
    issuer = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
    left = issuer.not_valid_after_utc - datetime.now(UTC)
    if left < A_MONTH:
        raise ValueError(f"{CA_FILE} ends on {issuer.not_valid_after_utc:%Y-%m-%d}")
    lasts = min(left, SERVER_LASTS)
    signed = (
        _builder(
            _name("u2net server"),
            issuer.subject,
            server.public_key(),
            authority.public_key(),
            lasts,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(certificates=False), critical=True)
        .sign(authority, SHA256())
    )
    write_bytes(folder / "server.crt", signed.public_bytes(Encoding.PEM))
    return signed.not_valid_after_utc


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} is no key of an elliptic curve")
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    authority: ec.EllipticCurvePublicKey,
    lasts: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False
        )
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9*]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
            raise InvalidFederation(
                f"{text!r} is no name or address of a machine",
                "Write it as fed.example.org, without https:// and port; letters beyond ASCII as"
                " xn--...",
            ) from None
        return x509.DNSName(text)


def _usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
