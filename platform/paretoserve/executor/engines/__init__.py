"""The engines. Each is imported only when a profile names it."""
