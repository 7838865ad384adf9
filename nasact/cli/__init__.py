"""The command line: parses, calls, prints. Has no logic, and imports nothing slow before a command needs it."""
