"""The OpenAPI description as a page: no script, everything escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = b"""body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
padding: 0 1rem; color: #1c2430; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: #f4f6f8; padding: .7rem; overflow-x: auto; border-radius: 4px; }
.verb { display: inline-block; min-width: 4.2rem; font-weight: 700; color: #1f5fa8; }
table { border-collapse: collapse; } td { padding: .1rem .8rem .1rem 0; vertical-align: top; }
summary { cursor: pointer; }
@media (prefers-color-scheme: dark) { body { color: #dde3ea; background: #14181d; }
pre { background: #1e242b; } .verb { color: #7db4f0; } }
"""


def page(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(info['title'])}</title><link rel='stylesheet' href='/docs.css'></head>",
        f"<body><h1>{escape(info['title'])}</h1><p>{escape(info['description'])} ",
        "<a href='/openapi.json'>openapi.json</a></p>",
    ]
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            parts += _operation(path, verb, operation)
    return "".join([*parts, "</body></html>"])


def _operation(path: str, verb: str, operation: Mapping[str, Any]) -> list[str]:
    parts = [
        f"<h2><span class='verb'>{verb.upper()}</span> <code>{escape(path)}</code></h2>",
        f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>",
    ]
    body = operation.get("requestBody")
    if body is not None:
        schema = json.dumps(body["content"]["application/json"]["schema"], indent=1)
        parts.append(f"<details><summary>Body</summary><pre>{escape(schema)}</pre></details>")
    rows = [
        f"<tr><td><code>{status}</code></td><td>{escape(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    ]
    return [*parts, "<table>", *rows, "</table>"]
