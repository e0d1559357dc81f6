"""The network: configuration, encoder, heads, and faster kernels for a CPU."""
