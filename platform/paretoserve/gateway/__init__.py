"""One transport-free request life cycle, and thin gRPC and HTTP servers over it."""
