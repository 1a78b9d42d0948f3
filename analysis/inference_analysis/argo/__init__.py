"""The analysis inside of Argo Rollouts: Jobs, the Web provider, templates, ledger."""
