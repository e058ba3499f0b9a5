"""Between protobuf and the domain, and one error table for gRPC and HTTP."""
