"""`python -m clew.gateway`: started by the supervisor, see `process.launch`."""

from clew.gateway.process import main

main()
