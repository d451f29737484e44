"""Who runs the producer, and who waits for whom. All of streamkit's concurrency is here.

`thread` runs synchronous producers on pooled threads, `task` asynchronous ones as tasks;
`write` and `send` let an application on the stack of its server write by itself. Bytes
cross between threads in a `channel`. Iterables are pulled without an engine.

Rule: no lock is held while application code runs, and nobody who closes, aborts or leaves
ever waits for anybody.
"""
