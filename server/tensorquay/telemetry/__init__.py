"""What happened, counted and told: statistics, Prometheus, logs, traces."""
