"""The runs' own record, beside Prefect's: append-only JSON lines. Audit, never a plan's input."""
