"""Pure: plans, findings, tables and reports as markdown and as plain text."""
