"""Each API's route, fields, terminator, usage and errors: one file, one API."""
