"""Gather all text of a JSON value, what is embedded in base64 included."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any

BINARY = ("image/", "audio/", "video/", "font/", "application/pdf", "application/octet-stream")
# Keys of outputs in nbformat 3.
OLD_BINARY = ("png", "jpeg", "pdf")


def all_text(value: Any, skip: tuple[str, ...] = ()) -> str:
    """Keys and strings of a JSON value, line by line; pictures and keys to skip are left out."""
    found: list[str] = []
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list):
            todo.extend(reversed(item))
        elif isinstance(item, dict):
            found.extend(_decoded(item))
            for key, child in item.items():
                if key in skip or is_binary(key):
                    continue
                if isinstance(child, str):
                    found.append(f'"{key}": "{child}"')
                else:
                    found.append(key)
                    todo.append(child)
    return "\n".join(found)


def is_binary(key: str) -> bool:
    """Whether a key is that of a picture or the like, whose text says nothing."""
    return (key.startswith(BINARY) and key != "image/svg+xml") or key in OLD_BINARY


def _decoded(item: dict[str, Any]) -> Iterator[str]:
    """The text of an HTTP reply that Colab stored with an output."""
    data = item.get("data")
    if not isinstance(data, str) or not ("headers" in item or "status" in item):
        return
    try:
        body = base64.b64decode(data)
    except (binascii.Error, ValueError):
        return
    if b"\0" not in body[:1024]:
        yield body.decode("utf-8", errors="replace")
