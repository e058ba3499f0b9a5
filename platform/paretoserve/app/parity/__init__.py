"""`paretoserve parity`: executors in turn, the record, and the gate that asks for it."""
