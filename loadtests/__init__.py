"""Load tests: control rooms at work against a fenced engine, with locust."""
