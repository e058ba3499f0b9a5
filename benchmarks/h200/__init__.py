"""vLLM on H200 GPUs: see README.md."""
