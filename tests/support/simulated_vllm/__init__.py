"""A simulated vLLM server: vLLM's API, metrics and timing without weights.

`engine` and `blocks` are the pure model of continuous batching (no clock, no I/O), `api` and
`answers` are pure functions over bytes and text; `driver` paces the engine, `server` is the HTTP
edge. Start it with `python -m support.simulated_vllm --host 127.0.0.1 --port 8000`.
"""
