"""Every metric and span, declared in one place."""
