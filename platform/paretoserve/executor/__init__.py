"""The executor: the process that hosts an engine behind gRPC."""
