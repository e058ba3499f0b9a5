"""The simulator: the gateway's own router over modelled engines, driven by events."""
