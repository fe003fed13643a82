"""Where a model's time goes, what runs where, how much memory it takes, and which batch and thread count serve it best.

`command.py` sits in the user's process and starts a short-lived worker for each part (`measuring.py`).
"""
