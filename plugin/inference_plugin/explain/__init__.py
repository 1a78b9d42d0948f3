"""``inference-rollouts plugin explain``: what the server would do about a live Rollout, and why."""
