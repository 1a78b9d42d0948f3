"""``inference-rollouts plugin doctor``: whether an installation is right, and what to do if not."""
