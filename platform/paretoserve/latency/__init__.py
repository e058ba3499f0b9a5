"""Predicting TTFT and TPOT for a request on a replica."""
