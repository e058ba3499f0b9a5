"""gRPC settings of the data plane, both ends, and why.

A peer that vanished without a word (power, cable, SIGSTOP) is noticed by either end after 8 s: a
ping after 5 s without input, and 3 s for its answer. gRPC's core times that answer by
ping_timeout_ms, a minute if it is not set, and not by keepalive_timeout_ms (grpc/grpc PR 39239);
both are set. A server by default answers frequent pings with GOAWAY, hence max_ping_strikes.
"""

from __future__ import annotations

MAX_SUBMIT_BYTES = 8 * 2**20
"""A prompt of a million tokens is under 5 MiB; a frame, bounded by its requests, is far smaller."""
MAX_FRAME_BYTES = 32 * 2**20
MAX_CONCURRENT_STREAMS = 1024
"""Per connection. A gateway needs two (Attach, WatchState); single callers one per request."""

_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MAX_SUBMIT_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_KEEPALIVE,
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_SUBMIT_BYTES),
    ("grpc.enable_http_proxy", 0),  # executors are on a private network
    ("grpc.use_local_subchannel_pool", 1),  # each channel its own connection and its own backoff
    ("grpc.enable_retries", 0),
)
