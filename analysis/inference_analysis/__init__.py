"""The analysis worker: a verdict on a canary against stable.

Everything here but ``command`` and ``reading`` is pure: values in, values out, no clock, no
network, no randomness.
"""
