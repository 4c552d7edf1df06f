"""The JSON schema of configuration files, and in words what an option may be."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from progan.config.parts.extended import extended
from progan.config.parts.part import Parts
from progan.config.tree import Options

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_schema(parts: Parts = Parts()) -> dict[str, Any]:  # noqa: B008 - frozen
    """Return the JSON schema (draft 2020-12) of configuration files, for editors and validators.

    It knows every option's name, type and limits. Rules that span options are left to `make_config`.
    """
    schema: dict[str, Any] = extended(Options, parts).model_json_schema(mode="validation")
    branches = schema["$defs"].values()
    for branch in (schema, *branches):
        for option in branch["properties"].values():
            # Names are their own titles; defaults of whole branches repeat those of their options.
            option.pop("title", None)
            if "$ref" in option:
                option.pop("default", None)
    schema["properties"] = {"$schema": {"type": "string", "description": "Where this schema is."}} | schema[
        "properties"
    ]
    about = "What a file for `progan train --config FILE` may hold: any part of a configuration."
    return {"$schema": DIALECT} | schema | {"title": "Configuration of progan", "description": about}


@cache
def option_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the JSON schema of one option of a branch: what may be given for it."""
    schema: dict[str, Any] = model.model_json_schema(mode="validation")["properties"][name]
    return schema


def in_words(schema: dict[str, Any]) -> str:
    """Say what a JSON schema of an option allows, such as 'a whole number of at least 1'."""
    if "anyOf" in schema:
        forms = [form for form in schema["anyOf"] if form.get("type") != "null"]
        words = [in_words(form) for form in forms]
        if len(forms) == 2 and forms[1].get("items") == forms[0]:
            return f"{words[0]}, or a list of such (one for each level)"
        return " or ".join(words)
    if "enum" in schema:
        *words, last = map(repr, schema["enum"])
        return f"{', '.join(words)} or {last}" if words else last
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"{len(schema['prefixItems'])} values, each {in_words(schema['prefixItems'][0])}"
        return f"a list of {in_words(schema['items'])}"
    if kind in ("integer", "number"):
        return f"a {'whole number' if kind == 'integer' else 'number'}{_limits(schema)}"
    return {"boolean": "true or false", "string": "a path" if schema.get("format") else "text"}[str(kind)]


def _limits(schema: dict[str, Any]) -> str:
    """Say between what a number must lie; nothing if it may lie anywhere."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    said = [
        f"{word} {limit:g}" if limit < 1e6 else f"{word} 2^{limit.bit_length() - 1}"
        for word, limit in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if limit is not None
    ]
    return f", {' and '.join(said)}" if said else ""
