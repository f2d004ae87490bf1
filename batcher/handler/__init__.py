"""What a handler gets, what it may say, and how it is called: a handler is a function of the user's own.

`message` has what people import. The rest is shared by the pools of `sinks.handler` and by their worker processes,
which load nothing but this package and the user's module. So it imports nothing heavy, and nothing of ours.
"""
