"""Make a model faster where it will serve, and keep it only when that is measured and the answers are still right.

The conductor (`conduct.py`) decides; every graph is rewritten, judged and timed in processes of their own (`jobs.py`).
"""
