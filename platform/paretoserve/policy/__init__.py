"""Choosing: filters, scorers, a picker, and the pure function `decide`."""
