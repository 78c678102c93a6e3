"""The nouns that everyone shares; imports nothing of ours."""
