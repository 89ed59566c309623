"""The JSON Schema of `config.json`, for editors. Pure; the copy that is shipped is `scheduler/config.schema.json`."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from scheduler.core.models import CONFIG_VERSION, ProjectSettings, Task


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def config_schema() -> dict[str, Any]:
    """The schema, generated from the models that read the file."""
    asked = [(Task, "validation"), (ProjectSettings, "validation")]
    refs, parts = models_json_schema(asked, by_alias=True, schema_generator=_Untitled)  # type: ignore[arg-type]
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "A project's scheduled tasks",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "version": {"const": CONFIG_VERSION},
            "settings": refs[ProjectSettings, "validation"],
            "tasks": {"type": "array", "items": refs[Task, "validation"]},
        },
        "required": ["version"],
        "additionalProperties": False,
        "$defs": parts["$defs"],
    }
    _tidy(schema)
    return schema


def _tidy(node: Any) -> None:
    """Say in the words of JSON Schema what pydantic leaves out: a duration's limits, and that a trigger has its tag."""
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _tidy(part)
    if not isinstance(node, dict):
        return
    limits = {word: node.pop(name) for name, word in (("ge", "minimum"), ("le", "maximum")) if name in node}
    for kind in node.get("anyOf", ()):
        if kind.get("type") == "integer":
            kind.update(limits)
    tag = node.get("properties", {}).get("type", {})
    if tag.pop("default", None) is not None:
        node["required"] = ["type", *node["required"]]
