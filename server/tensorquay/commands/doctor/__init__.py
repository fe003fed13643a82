"""`tensorquay doctor`: looks at everything that can keep the server from working, and says what to do about it.

Each module asks one part of the surroundings and decides what is wrong with it; none changes anything. Where they look
(a root for /proc and /sys, variables, functions of the system) are parameters, so that every case can be tested.
"""
