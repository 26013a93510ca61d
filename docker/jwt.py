#!/usr/bin/env python3
"""Prints a JWT that is good for an hour, signed with JWT_SECRET of .env, or of the environment.

docker/jwt.py USER_ID           role authenticated: what this user may do
docker/jwt.py - service_role    everything that operators do; not for browsers
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from pathlib import Path


def secret() -> str:
    """JWT_SECRET as docker/init-env.sh made it."""
    if found := os.environ.get("JWT_SECRET"):
        return found
    file = Path(__file__).resolve().parents[1] / ".env"
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("JWT_SECRET="):
            return line.partition("=")[2]
    sys.exit("no JWT_SECRET: run docker/init-env.sh")


def base64url(data: bytes) -> str:
    """Base64 in the alphabet of URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(user: str, role: str, key: str) -> str:
    """HS256 over the claims that PostgREST and ``auth.uid()`` read."""
    claims = {"role": role, "exp": int(time.time()) + 3600} | ({} if user == "-" else {"sub": user})
    text = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{text}.{base64url(hmac.digest(key.encode(), text.encode(), hashlib.sha256))}"


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    sys.stdout.write(token(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "authenticated", secret()) + "\n")
