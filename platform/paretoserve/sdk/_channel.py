"""How a client's channel is set up."""

from __future__ import annotations

import grpc

from paretoserve.sdk._options import ClientOptions, Tls

ChannelArgument = tuple[str, str | int]


def channel_arguments(options: ClientOptions) -> list[ChannelArgument]:
    """The gRPC channel arguments for these options."""
    arguments: list[ChannelArgument] = [
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", round(options.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(options.keepalive_timeout_s * 1000)),
        # Retries are made in one place, by `retry_flow`.
        ("grpc.enable_retries", 0),
        # By default a channel that failed to connect fails every call for a second, which would
        # use up the attempts of a call whose server is just being restarted.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5000),
    ]
    if options.tls is not None and options.tls.server_name is not None:
        arguments.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return arguments


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        tls.root_certificates, tls.private_key, tls.certificate_chain
    )
