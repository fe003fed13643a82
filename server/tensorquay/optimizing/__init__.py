"""Background optimisation: a model whose configuration asks for it is optimised on this machine while it serves.

Done by a command, in a process of its own that takes what nobody else wants; the server itself measures nothing. The
command publishes what it found as the model's next version, which is then loaded like any other.
"""
