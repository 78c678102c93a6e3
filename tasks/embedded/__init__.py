"""Prefect's API for a command line without a server."""
