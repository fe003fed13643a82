"""Settings: of the server (`server.py`), of one model (`model.py`), and Triton's spelling of it (`triton.py`)."""
