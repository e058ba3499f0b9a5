"""gRPC settings towards a stock server, and why they are not the data plane's."""

from __future__ import annotations

from paretoserve.executor.transport import MAX_FRAME_BYTES

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # No keepalive pings: the server allows them every five minutes at most and would answer more
    # with GOAWAY (too_many_pings), which ends every stream. HealthCheck is asked instead.
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),  # the stock server takes as much
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
