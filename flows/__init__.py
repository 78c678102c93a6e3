"""The runbooks: one a file, file = function = deployment name."""
