"""Hosts over SSH: what to run (pure), what came back (pure), and the one connection."""
