"""Filters and scorers, one file each, with formula, inputs and intent."""
