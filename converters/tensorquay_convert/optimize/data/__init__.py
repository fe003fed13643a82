"""What models are judged and timed with: the user's files or drawn rows, checked, split and written (`samples.py`)."""
