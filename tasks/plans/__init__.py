"""Pure decisions: (desired, observed) -> steps, or a refusal that says why."""
