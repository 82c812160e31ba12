"""HTTP/1.1 bytes: heads, bodies, connections, relay, timers. Knows no sessions."""
