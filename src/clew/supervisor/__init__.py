"""The parent process: sockets, children, signals."""
