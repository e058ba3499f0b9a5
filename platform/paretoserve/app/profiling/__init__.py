"""Measuring profiles: streams and what they say, result files, latency curves, the frontier."""
