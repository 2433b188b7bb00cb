"""Sends one order until its response is final: python3 order.py <idempotency key> <body>"""
import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import sys
import time
from urllib.parse import urlsplit

key, body = sys.argv[1], sys.argv[2].encode()
url = urlsplit(os.environ.get("ORDER_URL", "http://127.0.0.1:8080"))
secret = os.environ.get("HMAC_SECRET", "super-secret-key").encode()
key_file = os.environ.get("CLIENT_KEY")


def encode(data):
    return f":{base64.b64encode(data).decode()}:"


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign(jwk, base):
    """The algorithm is that of the key: Ed25519 if it has a member d, otherwise HMAC-SHA256."""
    if "d" in jwk:
        if jwk.get("crv") != "Ed25519":
            sys.exit(f"{key_file}: the key must be Ed25519 or HMAC, not {jwk.get('crv')}")
        # The package `cryptography`: the standard library has no Ed25519.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(decode(jwk["d"])).sign(base)
    return hmac.digest(decode(jwk["k"]), base, "sha256")


def make_signature():
    """The headers of the signature: X-Signature, or with a key of the client a message signature."""
    if not key_file:
        return {"X-Signature": hmac.new(secret, body, "sha256").hexdigest()}
    with open(key_file) as file:
        jwk = json.load(file)
    components = {
        "@method": "POST",
        "@authority": url.netloc.lower(),
        "@path": "/orders",
        "content-digest": f"sha-256={encode(hashlib.sha256(body).digest())}",
        "content-type": "application/json",
        "idempotency-key": key,
    }
    names = " ".join(f'"{name}"' for name in components)
    params = f'({names});created={int(time.time())};keyid="{jwk["kid"]}"'
    lines = [f'"{name}": {value}' for name, value in components.items()]
    base = "\n".join([*lines, f'"@signature-params": {params}'])
    return {
        "Content-Digest": components["content-digest"],
        "Signature-Input": f"sig1={params}",
        "Signature": f"sig1={encode(sign(jwk, base.encode()))}",
    }


def send():
    """Sends one request. Raises an error if no complete response arrives."""
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "Prefer": "wait=10",
        **make_signature(),  # again for each attempt, because it has a time
    }
    is_tls = url.scheme == "https"
    connect = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
    connection = connect(url.netloc, timeout=15)  # longer than the wait=10 of Prefer
    try:
        connection.request("POST", "/orders", body, headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")  # the page of a proxy may not be UTF-8
        return response.status, response.headers.get("Retry-After"), text
    finally:
        connection.close()


def is_retryable(status, retry_after):
    return status in (0, 408, 429) or status >= 500 or (status == 409 and retry_after is not None)


ends_at = time.monotonic() + 120  # two windows of the rate limit
back_off = 0.2
while True:
    try:
        status, retry_after, text = send()
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        status, retry_after, text = 0, None, ""
    if not is_retryable(status, retry_after):
        print(text)
        sys.exit(0 if status == 201 else 1)
    seconds = int(retry_after) if (retry_after or "").isdecimal() else 0
    wait = seconds + random.random() * back_off
    result = f"status {status}" if status else "no response"
    print(f"{result}; next attempt in {wait:.3f} s", file=sys.stderr)
    if time.monotonic() + wait > ends_at:
        sys.exit(1)  # the result is unknown
    time.sleep(wait)
    back_off = min(2 * back_off, 10)
