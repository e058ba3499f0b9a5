"""Configuration, wiring, Ray Serve deployments and the command line."""
