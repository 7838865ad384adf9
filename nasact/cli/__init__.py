"""The door for people and scripts: parse, call, print. No logic, and nothing heavy before it is needed."""
