"""Three canaries on a real cluster on this machine, with streaming requests all along."""
