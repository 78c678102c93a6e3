"""Prints the inventory's JSON Schema, for editors: `python -m tasks.model.schema`."""

from __future__ import annotations

import json

from tasks.model.inventory import Inventory

if __name__ == "__main__":
    schema = Inventory.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    print(json.dumps(schema, indent=2, sort_keys=True))  # noqa: T201 - this is what it is for
