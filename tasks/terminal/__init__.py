"""What a person sees of a run on a terminal, or in a pipe."""
