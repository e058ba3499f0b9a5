"""Serve one model in several engine configurations and choose, per request, by the tenant's SLA."""

__version__ = "0.1.0"
