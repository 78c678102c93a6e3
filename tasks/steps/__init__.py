"""Prefect tasks, one concern a module; they never import each other."""
