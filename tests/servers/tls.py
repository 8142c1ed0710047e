"""Ends TLS and passes what is within on, as it is, to a server without.

Makes an authority and a certificate for 127.0.0.1 and localhost; no client trusts them that is not
told to. Arguments: the port, the port of the server, the file for the authority's certificate.
"""

import datetime
import ipaddress
import os
import socket
import ssl
import sys
import tempfile
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(name, key, issuer, issuer_key, extensions):
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def common_name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def context(authority_file):
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = common_name("driftless test authority")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    own = certificate(authority, authority_key, authority, authority_key,
                      [(x509.BasicConstraints(True, None), True), (usage, True), (identifier, False)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    server_use = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])
    leaf = certificate(common_name("localhost"), key, authority, authority_key,
                       [(x509.BasicConstraints(False, None), True), (x509.SubjectAlternativeName(names), False),
                        (issued_by, False), (server_use, False)])
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as chain:
        chain.write(leaf + private)
        chain.flush()
        made.load_cert_chain(chain.name)
    with open(authority_file + ".new", "wb") as file:
        file.write(own)
    os.rename(authority_file + ".new", authority_file)
    return made


def copy(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    # What the other side has to say still passes.
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(tls, client, server):
    try:
        client = tls.wrap_socket(client, server_side=True)
    except OSError:
        return
    with client, socket.create_connection(server) as inner:
        back = threading.Thread(target=copy, args=(inner, client))
        back.start()
        copy(client, inner)
        back.join()


port, server_port, authority_file = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", int(port)), backlog=1024)
tls = context(authority_file)
while True:
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(tls, client, ("127.0.0.1", int(server_port))), daemon=True).start()
