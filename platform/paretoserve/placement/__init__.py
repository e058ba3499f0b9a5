"""From fleet telemetry to a Snapshot, and from a decision to a Ticket."""
