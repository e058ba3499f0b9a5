"""`paretoserve key`."""

from __future__ import annotations

import argparse
import secrets

from paretoserve.gateway.tenants import hash_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hash-of", metavar="KEY", help="print the hash of an existing key instead of a new one"
    )


def run(options: argparse.Namespace) -> int:
    key = options.hash_of or f"sk-{secrets.token_urlsafe(32)}"
    if not options.hash_of:
        print(f"key   {key}   (give it to the tenant; it is stored nowhere)")
    print(f"hash  {hash_key(key)}   (goes into the tenant's key_hashes)")
    return 0
