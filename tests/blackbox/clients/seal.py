#!/usr/bin/env python3
"""The formats of docs/keys.md a second time, written from the document alone.

`seal.py open VECTORS` opens everything in a file of vectors and compares it; `seal.py seal VECTORS` seals the
same things again, with salts and coefficients of its own, and prints them as such a file. `open-external` and
`seal-external` do so with a tenant's key that is sealed under a key of an external service.
"""

import json
import os
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def hkdf(key, salt, info, length):
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt or None, info=info).derive(key)


def key_id(key, kind):
    return hkdf(key, b"", b"holdfast key id v1 " + kind, 16)


def envelope_seal(key, purpose, context, plain):
    salt = os.urandom(24)
    derived = hkdf(key, salt, b"holdfast envelope v1 " + purpose, 64)
    return b"\x01" + salt + derived[32:] + AESGCM(derived[:32]).encrypt(bytes(12), plain, context)


def envelope_open(key, purpose, context, envelope):
    assert envelope[0] == 1, "unknown version"
    salt, commitment, sealed = envelope[1:25], envelope[25:57], envelope[57:]
    derived = hkdf(key, salt, b"holdfast envelope v1 " + purpose, 64)
    assert derived[32:] == commitment, "another key"
    return AESGCM(derived[:32]).decrypt(bytes(12), sealed, context)


def cell_box(v, content, cell):
    aad = b"cell\x01" + v["cluster"] + v["tenant"] + v["bucket"] + content
    aad += cell["stripe"].to_bytes(4, "big") + bytes([cell["last"], 0])
    nonce = bytes(4) + cell["stripe"].to_bytes(4, "big") + cell["cell"].to_bytes(4, "big")
    return nonce, aad


def multiply(a, b):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a):
    return next(b for b in range(1, 256) if multiply(a, b) == 1)


def combine(shares):
    secret = bytearray(32)
    for x, y in shares:
        basis = 1
        for other, _ in shares:
            if other != x:
                basis = multiply(basis, multiply(other, inverse(other ^ x)))
        for i in range(32):
            secret[i] ^= multiply(y[i], basis)
    return bytes(secret)


def split(secret, threshold, count):
    rows = [secret] + [os.urandom(32) for _ in range(threshold - 1)]

    def point(x):
        y, power = bytearray(32), 1
        for row in rows:
            for i in range(32):
                y[i] ^= multiply(row[i], power)
            power = multiply(power, x)
        return bytes(y)

    return [(x, point(x)) for x in range(1, count + 1)]


def load(path):
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    text = {"name", "secret_name"}
    v = {k: bytes.fromhex(x) if isinstance(x, str) and k not in text else x for k, x in raw.items()}
    for cell in v["cells"]:
        cell["plain"], cell["sealed"] = bytes.fromhex(cell["plain"]), bytes.fromhex(cell["sealed"])
    v["shares"] = [(x, bytes.fromhex(y)) for x, y in v["shares"]]
    return raw, v


def under_root(v, name):
    return v["cluster"] + v["root_epoch"].to_bytes(4, "big") + name


def open_root(v, purpose, name, wrapped):
    assert int.from_bytes(wrapped[:4], "big") == v["root_epoch"], "another epoch"
    return envelope_open(v["root_key"], purpose, under_root(v, name), wrapped[4:])


def tenant_versions(v):
    entries = [v["tenant_key"][i : i + 36] for i in range(0, len(v["tenant_key"]), 36)]
    return {int.from_bytes(entry[:4], "big"): entry[4:] for entry in entries}


def metadata_key(tenant_key):
    return hkdf(tenant_key, b"", b"holdfast tenant metadata v1", 32)


def version_of(sealed):
    return int.from_bytes(sealed[:4], "big")


def body_context(v, content):
    return v["cluster"] + v["tenant"] + v["bucket"] + content + v["name"].encode()


def check(v):
    secret_name = v["secret_name"].encode()
    tenant_keys = tenant_versions(v)
    assert [[n, key_id(key, b"tenant").hex()] for n, key in tenant_keys.items()] == v["tenant_key_ids"]
    for kind in (b"root", b"cluster"):
        name = kind.decode()
        assert key_id(v[name + "_key"], kind) == v[name + "_key_id"], name
    assert open_root(v, b"tenant key", v["tenant"], v["wrapped_tenant_key"]) == v["tenant_key"]
    assert open_root(v, b"cluster key", b"", v["wrapped_cluster_key"]) == v["cluster_key"]
    assert open_root(v, b"root record", secret_name, v["root_record"]) == b"a record"
    named = v["cluster"] + secret_name
    assert envelope_open(v["cluster_key"], b"cluster secret", named, v["cluster_secret"]) == b"a secret"
    metadata = metadata_key(tenant_keys[version_of(v["manifest"])])
    assert envelope_open(metadata, b"record manifest", v["stripe"], v["manifest"][4:]) == b"a manifest"
    content, wrapped = v["sealed_body_key"][:16], v["sealed_body_key"][16:]
    tenant_key = tenant_keys[version_of(wrapped)]
    body_key = envelope_open(tenant_key, b"body key", body_context(v, content), wrapped[4:])
    for cell in v["cells"]:
        nonce, aad = cell_box(v, content, cell)
        assert AESGCM(body_key).decrypt(nonce, cell["sealed"], aad) == cell["plain"]
    assert combine(v["shares"][: v["threshold"]]) == v["root_key"]
    assert combine(v["shares"][-v["threshold"] :]) == v["root_key"]
    return 8 + len(v["cells"])


def sealed_again(raw, v):
    secret_name = v["secret_name"].encode()
    epoch = v["root_epoch"].to_bytes(4, "big")

    def root(purpose, name, plain):
        return (epoch + envelope_seal(v["root_key"], purpose, under_root(v, name), plain)).hex()

    # The older version: what it wraps stays readable.
    version, tenant_key = min(tenant_versions(v).items())
    versioned = version.to_bytes(4, "big")
    content, body_key = os.urandom(16), os.urandom(32)
    wrapped = versioned + envelope_seal(tenant_key, b"body key", body_context(v, content), body_key)
    manifest = envelope_seal(metadata_key(tenant_key), b"record manifest", v["stripe"], b"a manifest")
    cells = []
    for cell in v["cells"]:
        nonce, aad = cell_box(v, content, cell)
        sealed = AESGCM(body_key).encrypt(nonce, cell["plain"], aad)
        cells.append({**cell, "plain": cell["plain"].hex(), "sealed": sealed.hex()})
    named = v["cluster"] + secret_name
    return {
        **raw,
        "wrapped_tenant_key": root(b"tenant key", v["tenant"], v["tenant_key"]),
        "wrapped_cluster_key": root(b"cluster key", b"", v["cluster_key"]),
        "root_record": root(b"root record", secret_name, b"a record"),
        "cluster_secret": envelope_seal(v["cluster_key"], b"cluster secret", named, b"a secret").hex(),
        "manifest": (versioned + manifest).hex(),
        "sealed_body_key": (content + wrapped).hex(),
        "cells": cells,
        "shares": [(x, y.hex()) for x, y in split(v["root_key"], v["threshold"], 5)],
    }


def load_external(path):
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    text = {"description", "ciphertext"}
    v = {k: bytes.fromhex(x) if isinstance(x, str) and k not in text else x for k, x in raw.items()}
    return raw, v


EXTERNAL = b"tenant key under an external key"


def external_head(v):
    head = bytes(4) + b"\x01" + v["service"]
    for text in (v["description"].encode(), v["ciphertext"].encode()):
        head += len(text).to_bytes(2, "big") + text
    versions = tenant_versions(v)
    head += len(versions).to_bytes(2, "big")
    for number, key in versions.items():
        head += number.to_bytes(4, "big") + metadata_key(key) + key_id(key, b"tenant")
    return head


def check_external(v):
    plain = open_root(v, b"tenant key", v["tenant"], v["wrapped_tenant_key"])
    head = external_head(v)
    assert plain[: len(head)] == head, "marker, form, service, texts, metadata"
    context = v["cluster"] + v["tenant"]
    assert envelope_open(v["external_key"], EXTERNAL, context, plain[len(head) :]) == v["tenant_key"]
    return 2


def external_again(raw, v):
    context = v["cluster"] + v["tenant"]
    plain = external_head(v) + envelope_seal(v["external_key"], EXTERNAL, context, v["tenant_key"])
    epoch = v["root_epoch"].to_bytes(4, "big")
    wrapped = epoch + envelope_seal(v["root_key"], b"tenant key", under_root(v, v["tenant"]), plain)
    return {**raw, "wrapped_tenant_key": wrapped.hex()}


def main():
    action, path = sys.argv[1:]
    if action == "open-external":
        return print(f"opened {check_external(load_external(path)[1])}")
    if action == "seal-external":
        return json.dump(external_again(*load_external(path)), sys.stdout)
    raw, v = load(path)
    if action == "open":
        print(f"opened {check(v)}")
    elif action == "seal":
        json.dump(sealed_again(raw, v), sys.stdout)
    else:
        sys.exit(f"unknown action {action}")


if __name__ == "__main__":
    main()
