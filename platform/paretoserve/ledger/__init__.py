"""Reserving, settling and releasing quota."""
