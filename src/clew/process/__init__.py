"""What every child process of the supervisor shares: how it is launched and when it leaves."""
