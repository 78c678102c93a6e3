"""What several runbooks share: compositions of steps; they own none that changes a host."""
