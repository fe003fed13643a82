"""What a person and a program read about an optimisation: `report.html`, `optimization.json`, the console's table."""
