"""The vocabulary every other room speaks: data types, tensors, messages, signatures, errors, ids, time.

Standard library and numpy only; imports nothing else of ours.
"""
