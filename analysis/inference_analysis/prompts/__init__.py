"""Answer quality: the same prompts to both versions, checks, a judge, and scores of other tools."""
