"""The picker before real vLLM on CPU: `make vllm`. Needs 6 GB of disk, and is not part of CI."""
