"""The core: no I/O, no thread, no loop, no clock, no logging. Values in, values out.

`commit` says what may follow what, `framing` what kind of body a response has, `headers`
what its head says, `producers` what can make chunks, `completion` what ends a stream that
failed, `stream` what the application holds, `response` describes a response to be carried out.
"""
